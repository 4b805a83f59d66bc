"""New images labelled by the networks of a finished run: the bits that its label stage gives, with Ray and without."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from support.tiny_run import Finished, digests, files, ray_ns

pytestmark = pytest.mark.ray

# The command in a process that says afterwards whether it has loaded Ray.
ALONE = """
import sys
from ray_ns.exits import guarded
from ray_ns.cli import command_line
code = guarded(command_line, sys.argv[1:])
print(sorted(name for name in sys.modules if name.partition(".")[0] == "ray"))
sys.exit(code)
"""


def alone(*words: str) -> tuple[dict[str, Any], str]:
    """What the command with ``--json`` gives without Ray, and what it said meanwhile."""
    kept = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [sys.executable, "-c", ALONE, *words, "--json"]
    done = subprocess.run(command, env=kept, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    told, loaded = done.stdout.splitlines()
    assert loaded == "[]"
    return json.loads(told), done.stderr


def labels(stage: Path) -> pa.Table:
    """All label rows of a stage, by id."""
    tables = [pq.read_table(path) for path in sorted((stage / "data").rglob("labels.parquet"))]
    return pa.concat_tables(tables).replace_schema_metadata(None).sort_by("image_id").combine_chunks()


@pytest.fixture(scope="module")
def pool(finished: Finished) -> str:
    return str(finished.config.parent / "data/pool")


@pytest.fixture(scope="module")
def by_teacher(finished: Finished, pool: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The pool labelled without Ray by the first teacher, from its bare folder: the prediction, and its words."""
    (weights,) = (finished.run / "rounds/0/train/data").rglob("model.safetensors")
    recorded = json.loads((finished.run / "run.json").read_bytes())["config"]["label"]
    words = [str(weights.parent), pool, *(f"label.{name}={value}" for name, value in recorded.items())]
    out = tmp_path_factory.mktemp("by teacher") / "x.parquet"
    told, _ = alone("predict", *words, "-o", str(out))
    assert (told["images"], told["labelled"], told["unreadable"]) == (600, 598, {"empty": 1, "truncated": 1})
    return out, words


def test_without_ray_the_labels_are_bit_for_bit_those_of_the_label_stage(
    finished: Finished, by_teacher: tuple[Path, list[str]]
) -> None:
    found, stage = labels(Path(f"{by_teacher[0]}.run/label")), labels(finished.run / "rounds/1/label")
    assert found["image_id"].equals(stage["image_id"])
    known = pc.fill_null(pc.starts_with(stage["quarantine"], "in_"), False)  # a run leaves out its labelled images
    new = pc.indices_nonzero(pc.invert(known))
    assert len(new) > 590
    columns = ["image_id", "label", "confidence", "quarantine", "top_label", "top_probability"]
    assert found.select(columns).take(new).equals(stage.select(columns).take(new))


def test_with_ray_the_commits_are_the_same(by_teacher: tuple[Path, list[str]], tmp_path: Path) -> None:
    out, words = by_teacher
    said = ray_ns(
        "predict", *words, "-o", str(tmp_path / "x.parquet"), "cluster.address=local", "label.actors=1"
    ).stderr
    assert "without Ray" not in said
    assert digests(tmp_path / "x.parquet.run") == digests(Path(f"{out}.run"))


def test_of_a_run_the_best_network_labels_as_the_run_does(finished: Finished, pool: str, tmp_path: Path) -> None:
    before = files(finished.run)
    out = tmp_path / "x.csv"
    told, said = alone("predict", str(finished.run), pool, "-o", str(out))
    assert "without Ray" in said
    assert told["labelled"] == 598
    inside = Path(f"{out}.run")
    weights = json.loads((inside / "network/commit.json").read_bytes())["parts"][0]["objects"]["model.safetensors"]
    assert weights["sha256"] == finished.report["best_weights_sha256"]
    settings = json.loads((inside / "run.json").read_bytes())["config"]["predict"]
    recorded = json.loads((finished.run / "run.json").read_bytes())["config"]
    assert settings["label"] == recorded["label"], "a label shard of that run is small enough for a prediction"
    assert settings["data"]["mean"] == recorded["data"]["mean"]
    assert not json.loads(ray_ns("verify", str(inside), "--json").stdout)["faults"]
    assert files(finished.run) == before
