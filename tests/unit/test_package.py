"""What the package says of itself, and what its wheel holds."""

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import ray_ns

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# The distribution that a module comes from, where it has another name; pydantic pins its core exactly.
COMES_FROM = {
    **{"PIL": "pillow", "yaml": "pyyaml", "sklearn": "scikit-learn", "pydantic_core": "pydantic"},
    "imagecorruptions": "imagecorruptions-imaug",
}


def declared() -> set[str]:
    extras = PROJECT["optional-dependencies"]
    listed = [*PROJECT["dependencies"], *(it for name in ("s3", "demo", "export", "robustness") for it in extras[name])]
    return {Requirement(it).name.lower() for it in listed}


def imported() -> set[str]:
    found = set()
    for path in (ROOT / "ray_ns").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {it.name.partition(".")[0] for it in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add((node.module or "").partition(".")[0])
    return found - sys.stdlib_module_names - {"ray_ns"}


def test_every_package_that_is_imported_is_declared() -> None:
    assert {COMES_FROM.get(name, name).lower() for name in imported()} <= declared()


def test_every_package_that_is_declared_is_pinned() -> None:
    pinned = {line.partition("==")[0].strip().lower() for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert declared() - {it.replace("-", "_") for it in pinned} - {it.replace("_", "-") for it in pinned} == set()


def test_type_checkers_find_the_types() -> None:
    assert (ROOT / "ray_ns/py.typed").read_bytes() == b""


def test_no_syntax_is_newer_than_the_oldest_python() -> None:
    oldest = tuple(map(int, re.findall(r"\d+", PROJECT["requires-python"])))
    assert oldest == (3, 11)
    for path in (ROOT / "ray_ns").rglob("*.py"):
        ast.parse(path.read_text(), feature_version=(oldest[0], oldest[1]))


def test_the_changelog_and_the_citation_are_of_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert f"## [{ray_ns.__version__}]" in text
    assert text.index("## [Unreleased]") < text.index(f"## [{ray_ns.__version__}]")
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (cited["version"], cited["license"]) == (ray_ns.__version__, PROJECT["license"])
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()
    assert cited["references"][0]["identifiers"][0]["value"] == PROJECT["urls"]["Paper"].rpartition("/")[2]


@pytest.mark.skipif(find_spec("hatchling") is None, reason="the build backend is not installed")
def test_the_wheel_holds_the_presets_and_the_mark_of_types(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as held:
        names = set(held.namelist())
        for path in (ROOT / "configs").glob("*.yaml"):
            assert held.read(f"ray_ns/presets/{path.name}") == path.read_bytes()
    assert {"ray_ns/py.typed", "ray_ns/cli/export.py"} <= names
    assert not any(name.startswith(("tests/", "benchmarks/", "configs/")) for name in names)
