"""The printed schema: every setting with its description, range and default."""

from pathlib import Path

import pytest
import yaml
from support.settings import HOW, MINIMAL, REQUIRED, SETTINGS, at, fields, leaves

from ray_ns.config import Config
from ray_ns.config.read import load
from ray_ns.config.show import schema_as_yaml


def test_the_printed_schema_is_yaml_with_every_setting_and_its_default(file: Path) -> None:
    printed = yaml.safe_load(schema_as_yaml())
    assert sorted(path for path, _ in leaves(printed)) == SETTINGS
    config = load(file)
    for path, value in leaves(printed):
        assert value == (None if path in REQUIRED else at(config, path)), path


def test_the_printed_schema_with_the_required_settings_filled_in_is_a_config(tmp_path: Path) -> None:
    printed = yaml.safe_load(schema_as_yaml())
    for path in REQUIRED:
        section = at(printed, path.rpartition(".")[0])
        section[path.rpartition(".")[2]] = at(MINIMAL, path)
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(printed))
    assert load(tmp_path / "x.yaml") == Config.model_validate(MINIMAL)


@pytest.fixture(scope="module")
def comments() -> dict[str, str]:
    """The comment line above every setting in the printed schema."""
    path: list[str] = []
    found, comment = {}, ""
    for line in schema_as_yaml().splitlines():
        if line.strip().startswith("#"):
            comment = line.strip()
            continue
        depth = (len(line) - len(line.lstrip())) // 2
        path = [*path[:depth], line.strip().split(":")[0]]
        found[".".join(path)] = comment
    return found


def test_the_printed_schema_describes_every_setting(comments: dict[str, str]) -> None:
    for path, field in fields():
        assert str(field.description) in comments[path]
        assert ("does not change the result" in comments[path]) == (path in HOW), path


@pytest.mark.parametrize(
    ("setting", "limits"),
    [
        ("run.rounds", [">= 1", "<= 20"]),
        ("data.channels", ["1 | 3"]),
        ("student.targets", ["soft | hard"]),
        ("student.optimizer.lr", ["> 0"]),
        ("select.threshold", [">= 0", "<= 1"]),
        ("select.per_class", [">= 1", "auto"]),
        ("teacher.ema_decay", ["> 0", "< 1"]),
        ("cluster.cpus", [">= 1"]),
    ],
)
def test_the_printed_schema_names_the_range(comments: dict[str, str], setting: str, limits: list[str]) -> None:
    comment = comments[setting].removeprefix(f"# {dict(fields())[setting].description}")
    for limit in limits:
        assert limit in comment
