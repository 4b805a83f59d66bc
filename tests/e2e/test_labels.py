"""The labels of a finished run, joined with the names of its images, against a join made by hand of its files."""

import csv
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from support.tiny_run import ray_ns

from ray_ns.store.objects import LocalStore
from ray_ns.store.verify import verify

pytestmark = pytest.mark.ray


def by_id(run: Path, stage: str, name: str) -> dict[int, dict]:
    """The rows of a stage's files, by image id."""
    return {
        row["image_id"]: row for path in (run / stage / "data").rglob(name) for row in pq.read_table(path).to_pylist()
    }


def test_every_image_of_a_finished_run_with_its_name_and_label(finished, tmp_path: Path) -> None:
    done = ray_ns(
        "labels", str(finished.run), "-o", str(tmp_path / "l.csv"), "--by-class", str(tmp_path / "s"), "--copy"
    )
    assert "600 rows, 598 images labelled, 2 unreadable" in done.stdout
    labels = by_id(finished.run, "rounds/1/label", "labels.parquet")
    chosen = by_id(finished.run, "rounds/1/select", "selection.parquet")
    pool = finished.config.parent / "data/pool"
    images = [image for path in sorted(pool.iterdir()) for image in pq.read_table(path)["image"].to_pylist()]
    with (tmp_path / "l.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for at, row in enumerate(rows):
        made = labels[int(row["image_id"])]
        assert (row["path"], row["row"]) == (str(pool / f"{at // 200}.parquet"), str(at % 200))
        assert row["label"] == ("" if made["label"] is None else str(made["label"]))
        assert int(row["copies"]) == chosen.get(made["image_id"], {"copies": 0})["copies"]
        assert (row["reason"] in {"empty", "truncated"}) == (made["label"] is None)
        if made["label"] is None:
            assert row["reason"] == made["quarantine"]
            continue
        assert float(row["confidence"]) == pytest.approx(made["confidence"])
        assert (row["reason"] == "below_threshold") == (made["confidence"] < 0.2)
        assert (row["reason"] == "") == (row["selected"] == "true") == (int(row["copies"]) > 0)
        (copied,) = (tmp_path / f"s/{made['label']}").glob(f"*-{row['image_id']}.*")
        assert copied.read_bytes() == images[at]
    assert len(list((tmp_path / "s").glob("*/*"))) == 598
    assert not [fault for _, fault in verify(LocalStore(finished.run)) if fault], "looking changes nothing"


def test_the_labels_of_the_best_network_or_the_command_that_makes_them(finished, tmp_path: Path) -> None:
    done = ray_ns("labels", str(finished.run), "-o", str(tmp_path / "l.jsonl"), "--network", "best", check=False)
    if finished.report["best"] == "rounds/0":
        assert done.returncode == 0
        assert len([json.loads(line) for line in (tmp_path / "l.jsonl").read_text().splitlines()]) == 600
    else:
        assert done.returncode == 2
        assert f"ray-ns predict {finished.run}" in done.stderr
