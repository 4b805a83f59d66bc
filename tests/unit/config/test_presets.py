"""The configs that come with the package, from the sources and from a wheel."""

from pathlib import Path

import pytest
from support.in_process import Call

from ray_ns.config import Config
from ray_ns.config.presets import PACKAGE, about, preset, presets
from ray_ns.config.read import load

CONFIGS = sorted((Path(__file__).parents[3] / "configs").glob("*.yaml"))


def test_they_are_the_configs_of_the_sources() -> None:
    assert {name: path.read_text() for name, path in presets().items()} == {it.stem: it.read_text() for it in CONFIGS}
    assert preset("demo") == preset("demo.yaml") == (CONFIGS[0].parent / "demo.yaml").read_text()


def test_of_a_wheel_they_lie_in_the_package(tmp_path: Path) -> None:
    (tmp_path / "ray_ns/presets").mkdir(parents=True)
    (tmp_path / "ray_ns/presets/mine.yaml").write_text("# Mine.\n")
    assert presets(tmp_path / "ray_ns") == {"mine": tmp_path / "ray_ns/presets/mine.yaml"}
    assert PACKAGE.name == "ray_ns"


def test_the_list_names_each_with_what_it_is_for(ray_ns: Call) -> None:
    done = ray_ns("config", "--list")
    assert done.code == 0
    rows = dict(line.split(maxsplit=1) for line in done.out.splitlines())
    assert list(rows) == [path.stem for path in CONFIGS]
    assert rows["demo"] == "Handwritten digits from 50 labels: the whole loop on a laptop."
    assert about("# One\n# sentence.\n#\n# more\nrun: 1\n") == "One sentence."


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_preset_is_printed_as_it_is(ray_ns: Call, tmp_path: Path, path: Path) -> None:
    done = ray_ns("config", path.stem)
    assert done.out == path.read_text()
    (tmp_path / "copy.yaml").write_text(done.out)
    assert load(tmp_path / "copy.yaml") == load(path)


@pytest.mark.parametrize("words", [["nope"], ["demo", "--list"], ["--list", "--schema"]], ids=" ".join)
def test_what_cannot_be_printed_is_one_line(ray_ns: Call, words: list[str]) -> None:
    done = ray_ns("config", *words)
    assert (done.code, done.out) == (2, "")
    assert done.err.count("\n") == 1


# What the papers and the released code ran, by arithmetic of its own.


def _shipped(name: str) -> Config:
    return load(next(path for path in CONFIGS if path.stem == name))


@pytest.mark.parametrize("which", ["teacher", "student"])
def test_svhns_learning_rate_ends_where_the_released_code_ends(which: str) -> None:
    recipe = _shipped("svhn-1k").recipes()[which]
    optimizer = recipe.optimizer
    assert optimizer.schedule == "step"
    assert optimizer.decay_steps is not None
    decays = recipe.steps // optimizer.decay_steps
    assert 0.016 * optimizer.decay_rate**decays == pytest.approx(0.0002, rel=0.03)
    assert recipe.peak_lr == pytest.approx(0.016 * 128 / 256)


def test_svhns_student_sees_what_the_released_codes_student_saw() -> None:
    student = _shipped("svhn-1k").students[0]
    assert student.optimizer.warmup_steps == pytest.approx(5 * 73_257 / 128, abs=1)
    assert (student.loss, student.ema_decay, student.ema_warmup) == ("sum", 0.9999, "tensorflow")
    assert (student.noise.crop, student.noise.cutout, student.noise.flip) == ("padded_last", 0.5, False)


@pytest.mark.parametrize("name", ["imagenet-b7", "imagenet-l2-three-rounds"])
def test_imagenets_recipes_are_those_of_the_papers(name: str) -> None:
    config = _shipped(name)
    images = 1_281_167 - 25_000
    for recipe in (config.teacher, *config.students):
        assert recipe.steps == pytest.approx(350 * images / 2048, rel=1e-3)
        assert recipe.optimizer.decay_steps == pytest.approx(2.4 * images / 2048, rel=1e-3)
        assert recipe.optimizer.warmup_steps == pytest.approx(5 * images / 2048, rel=1e-3)
        assert recipe.peak_lr == pytest.approx(0.128)
        assert (recipe.noise.operations, recipe.noise.probability, recipe.noise.cutout_operation) == (2, 1.0, True)
        assert min(recipe.ema_decay or 0, (1 + recipe.steps) / (10 + recipe.steps)) == 0.9999  # reached before the end
        assert config.data.interpolation == "bicubic"
    assert all(student.loss == "sum" for student in config.students)
    workers = config.cluster.worker_counts[0]
    assert config.cluster.bn_group == max(8, workers // 8)
