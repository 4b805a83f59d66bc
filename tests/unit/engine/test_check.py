"""One step of every stage without Ray, and nothing of it is left behind."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.tiny_run import write_tiny

from ray_ns.engine.check import check
from ray_ns.errors import InputError

LOOKS = ["precision", "data.labelled", "data.validation", "data.test", "data.pool", "gains"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("check"))


def test_every_stage_takes_a_step_and_nothing_is_written(tiny: Path, tmp_path: Path) -> None:
    before = sorted(tiny.parent.rglob("*"))
    found = list(check(str(tiny), [f"run.dir={tmp_path / 'run'}", "label.slice_rows=32"]))
    assert [it.what for it in found] == [
        *LOOKS,
        "train teacher",
        "evaluate",
        "label",
        "select",
        "train student",
        "in all",
    ]
    by = {it.what: it.figures for it in found}
    assert (by["data.pool"]["shards"], by["data.pool"]["looked_at"]) == (3, 16)
    assert (by["train teacher"]["images"], by["train student"]["images"]) == (20, 8 + 3 * 8)
    assert by["gains"]["test"] == {"images": 100, "visible_points": pytest.approx(6.198, abs=0.001)}
    (gains,) = (it.line for it in found if it.what == "gains")
    assert gains.startswith(
        "data.validation: 100 images: a gain under 6.0 points will not show, nor one under 6.2 where"
    )
    assert "a tenth of the images; sort 861 more validation images to see 2 points; data.test: 100 images" in gains
    assert by["label"]["images"] == by["select"]["labels"] == 32
    assert all("\n" not in it.line and json.dumps(it.figures) for it in found)
    assert sorted(tiny.parent.rglob("*")) == before
    assert not (tmp_path / "run").exists()


def test_a_worker_takes_its_share_and_every_recipe_its_step(tiny: Path) -> None:
    recipe = "{model: {name: resnet10t}, steps: 2, batch: 8, ratio: 1}"
    students = f"student=[{recipe}, {recipe[:-1]}, train_size: 20}}]"
    found = list(check(str(tiny), ["cluster.train_workers=2", "cluster.cpus=3", "run.rounds=2", students]))
    assert [it.what for it in found[-3:-1]] == ["train student.0", "train student.1"]
    trained = [it.figures for it in found if it.what.startswith("train")]
    assert [(it["images"], it["size"]) for it in trained] == [(10, 28), (8, 28), (8, 20)]


def test_a_corpus_of_no_readable_image_is_refused_by_name(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pool"
    folder.mkdir()
    pq.write_table(pa.table({"image": pa.array([b"text", b""], pa.binary())}), folder / "0.parquet")
    with pytest.raises(InputError, match=r"data\.pool: 2 of 2 images cannot be read"):
        list(check(str(tiny), [f"data.pool={folder}"]))
