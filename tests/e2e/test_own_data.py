"""The first evening: class folders and a folder of pictures, and the very command that the config's header gives."""

import shlex
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tiny_run import ray_ns, report

from ray_ns.demo import write_digits

pytestmark = [pytest.mark.ray, pytest.mark.chaos]

CONFIG = Path(__file__).parents[2] / "configs" / "own-data.yaml"

# The recipe on 64 pixels for an evening, cut to a minute.
TINY = [
    *("run.rounds=1", "data.size=28", "teacher.steps=30", "student.steps=20"),
    *("teacher.optimizer.warmup_steps=5", "student.batch=8", "select.threshold=0.1", "label.slice_rows=64"),
    *("control.enabled=false", "cluster.train_threads=1", "cluster.object_store_mb=100"),
]


def unpack(shards: Path, folder: Path, rows: int, classes: bool) -> Path:
    """Digits out of their Parquet shards, as a user's files."""
    table = pq.read_table(shards).slice(0, rows)
    labels = table["label"].to_pylist() if classes else [""] * table.num_rows
    for number, (image, label) in enumerate(zip(table["image"].to_pylist(), labels, strict=True)):
        place = folder / (f"digit {label}" if classes else f"{number % 3}")
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:05d}.png").write_bytes(image)
    return folder


def test_the_command_of_the_header_labels_selects_trains_and_shows_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_digits(tmp_path / "digits", 3, per_class=20)
    labelled = unpack(tmp_path / "digits/labelled", tmp_path / "my digits", 200, classes=True)
    pool = unpack(tmp_path / "digits/pool", tmp_path / "pictures", 400, classes=False)
    (pool / "0/bad.jpg").write_bytes(b"no picture")
    (pool / "notes.txt").write_text("of the holidays")
    header = [line.removeprefix("# command").split() for line in CONFIG.read_text().splitlines() if "# command" in line]
    program, *words = header[0]
    assert program == "ray-ns"
    words = [word.replace("labelled=FOLDER", f"labelled={labelled}") for word in words]
    words = [word.replace("pool=FOLDER", f"pool={pool}") for word in words]
    words = [str(CONFIG) if word == "configs/own-data.yaml" else word for word in words]
    assert "FOLDER" not in shlex.join(words)
    monkeypatch.chdir(tmp_path)
    done = ray_ns(*words, *TINY, "data.max_quarantined=0.01", "--json")
    rounds = report(done)["rounds"]
    assert [row["model"] for row in rounds] == ["resnet10t", "resnet10t"]
    assert rounds[1]["kept"] > 100
    run = tmp_path / "runs/own-data"
    commits = {path.parent.relative_to(run).as_posix() for path in run.rglob("commit.json")}
    assert {"rounds/1/label", "rounds/1/select", "rounds/1/train", "report"} <= commits
    shown = ray_ns(*words, *TINY)
    assert "0: teacher" in shown.stdout
    assert "digit 7" in ray_ns("select", *words[1:], *TINY).stdout, "classes are called by their names"
