"""The configs that come with the package, from the sources and from a wheel."""

from pathlib import Path

import pytest
from support.in_process import Call

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
