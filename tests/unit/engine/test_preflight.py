"""What cannot run is refused before Ray starts and before anything is written."""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_run import write_tiny

from ray_ns import config
from ray_ns.engine import preflight
from ray_ns.engine.driver import drive
from ray_ns.errors import InputError


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("preflight"))


@pytest.fixture
def refused(tiny: Path, tmp_path: Path):
    """Drive the tiny config with overrides; the text of the refusal. Nothing may be left in the run directory."""

    def attempt(*overrides: str) -> str:
        run = tmp_path / "run"
        with pytest.raises(InputError) as caught, drive(str(tiny), [f"run.dir={run}", *overrides], "plain"):
            pass
        assert not run.exists()
        return str(caught.value)

    return attempt


def copied(tiny: Path, tmp_path: Path, name: str, table: pa.Table) -> str:
    """A corpus of one shard; the override that puts it in the place of ``name``."""
    folder = tmp_path / "corpora" / name
    folder.mkdir(parents=True)
    pq.write_table(table, folder / "0.parquet")
    return f"data.{name}={folder}"


def test_a_config_that_can_run_passes_and_is_written_down(tiny: Path, tmp_path: Path) -> None:
    with drive(str(tiny), [f"run.dir={tmp_path / 'run'}"], "plain"):
        pass
    assert (tmp_path / "run/run.json").exists()
    assert (tmp_path / "run/corpora-1.json").exists()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("data.pool=/nowhere", ["data.pool", "/nowhere"]),
        ("student.ratio=-1", ["student.ratio", "-1", "greater than or equal to 1"]),
        ("student.model.name=resnet10", ["student.model.name", "did you mean", "resnet10t"]),
        ("teacher.model.args={chanels: [1, 2]}", ["teacher.model.args", "chanels"]),
        ("data.label_column=class", ["class", "image, label"]),
        ("data.image_column=jpg", ["jpg", "image"]),
        ("data.classes=11", ["class 10", "data.classes"]),
        ("data.classes=9", ["label is 9", "0 .. 8"]),
        ("label.actors=2", ["label.actors", "2 x 1", "make 3", "cluster has 2", "cluster.cpus"]),
        ("cluster.train_threads=3", ["cluster.train_threads", "make 3", "cluster has 2"]),
        ("label.gpus_per_actor=1", ["label.gpus_per_actor", "1 GPUs"]),
        ("teacher.finetune={steps: 2, freeze: 99}", ["teacher.finetune.freeze = 99", "layers"]),
        ("student.model.pretrained=/nowhere.safetensors", ["student.model.pretrained", "/nowhere.safetensors"]),
    ],
)
def test_bad_settings_are_refused_by_name(refused, override: str, words: list[str]) -> None:
    found = refused("cluster.cpus=2", override)
    for word in words:
        assert word in found


def test_an_empty_pool_is_refused(refused, tiny: Path, tmp_path: Path) -> None:
    empty = pa.table({"image": pa.array([], pa.binary())})
    assert "holds no image" in refused(copied(tiny, tmp_path, "pool", empty))
    (tmp_path / "nothing").mkdir()
    assert "no *.parquet" in refused(f"data.pool={tmp_path / 'nothing'}")


def test_a_class_with_no_labelled_image_is_named(refused, tiny: Path, tmp_path: Path) -> None:
    table = pq.read_table(tiny.parent / "data/labelled")
    without = table.filter(pa.compute.not_equal(table["label"], 4))
    assert "no labelled image of class 4" in refused(copied(tiny, tmp_path, "labelled", without))


@pytest.mark.parametrize("place", ["file", "/proc/ray-ns"])
def test_a_run_directory_that_cannot_be_written_is_refused(tiny: Path, tmp_path: Path, place: str) -> None:
    run = tmp_path / "file" if place == "file" else Path(place)
    if place == "file":
        run.write_text("not a folder")
        run = run / "run"
    with (
        pytest.raises(InputError, match="cannot be written"),
        drive(str(tiny), [f"run.dir={run}"], "plain"),
    ):
        pass


def test_a_pool_that_grew_is_told_of_and_left_out(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pool = tmp_path / "pool"
    shutil.copytree(tiny.parent / "data/pool", pool)
    words = [f"run.dir={tmp_path / 'run'}", f"data.pool={pool}"]
    with drive(str(tiny), words, "plain") as session:
        first = session.corpora["pool"]
    shutil.copy2(pool / "0.parquet", pool / "00-new.parquet")
    with drive(str(tiny), words, "plain") as session:
        assert session.corpora["pool"] == first
    assert "data.pool: 1 new shards are not part of this run; --grow takes them in" in capsys.readouterr().err
    for _ in range(2):
        with drive(str(tiny), words, "plain", grow=True) as session:
            assert session.corpora["pool"].shards[:3] == first.shards
            assert session.pools == (3, 4)
            assert session.place == "pool-2/"
    with drive(str(tiny), words, "plain") as session:
        assert session.pools == (3, 4), "what was taken in stays in"


CONFIGS = sorted((Path(__file__).parents[3] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_config_is_valid_and_its_networks_can_be_built(path: Path) -> None:
    assert preflight.check_models(config.load(path)) == []
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    for word in ("command", "hardware", "time", "expect"):
        assert any(line.startswith(f"# {word} ") for line in header), word


def test_the_papers_chain_is_b7_and_three_l2_at_14_14_28() -> None:
    found = config.load(next(path for path in CONFIGS if path.stem == "imagenet-l2-three-rounds"))
    assert found.teacher.model.name == "efficientnet_b7"
    assert [(it.model.name, it.ratio) for it in found.students] == [
        ("efficientnet_l2", ratio) for ratio in (14, 14, 28)
    ]
    assert found.teacher.peak_lr == pytest.approx(0.128)


def test_a_student_smaller_than_its_teacher_is_told_of(tiny: Path) -> None:
    (warning,) = preflight.check_models(
        config.load(tiny, ["student.model.args={channels: [8, 8, 8, 8], stem_type: deep, stem_width: 4}"])
    )
    assert "student.model: " in warning
    assert "its teacher has " in warning
