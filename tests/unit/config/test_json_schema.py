"""The JSON Schema of a config: it takes what ``load`` takes, and refuses by name what is wrong in one setting."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from support.in_process import Call
from support.settings import HOW, MINIMAL, fields

from ray_ns.config.json_schema import json_schema

CONFIGS = sorted((Path(__file__).parents[3] / "configs").glob("*.yaml"))
SCHEMA = json_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def faults(value: Any) -> list[str]:
    return [".".join(map(str, error.absolute_path)) for error in VALIDATOR.iter_errors(value)]


def test_it_is_a_schema(ray_ns: Call) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert json.loads(ray_ns("config", "--schema").out) == SCHEMA


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_preset_is_valid(path: Path) -> None:
    assert faults(yaml.safe_load(path.read_text())) == []


def test_the_least_config_and_every_default_are_valid() -> None:
    assert faults(MINIMAL) == []
    assert faults({**MINIMAL, "data": {**MINIMAL["data"], "classes": None, "validation": None}}) == []


@pytest.mark.parametrize(
    ("section", "setting", "value"),
    [
        ("run", "rounds", 21),
        ("data", "channels", 2),
        ("data", "fit", "stretch"),
        ("data", "classes", 1),
        ("select", "threshold", 1.5),
        ("select", "per_class", "all"),
        ("teacher", "steps", 0),
    ],
)
def test_a_value_out_of_range_is_found_where_it_is(section: str, setting: str, value: Any) -> None:
    wrong = {**MINIMAL, section: {**MINIMAL.get(section, {}), setting: value}}
    assert faults(wrong) == [f"{section}.{setting}"]


def test_a_setting_that_is_misspelt_and_one_that_is_missing_are_found() -> None:
    assert faults({**MINIMAL, "data": {**MINIMAL["data"], "szie": 64}}) == ["data"]
    assert faults({**MINIMAL, "run": {}}) == ["run"]


def described(node: Any = SCHEMA) -> set[str]:
    inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    own = {node["description"]} if isinstance(node, dict) and isinstance(node.get("description"), str) else set()
    return own.union(*map(described, inner))


def test_every_setting_has_its_description_and_says_if_it_does_not_change_the_result() -> None:
    found = described()
    for path, field in fields():
        end = " (does not change the result)" if path in HOW else ""
        assert f"{field.description}{end}" in found, path
    assert '"result"' not in json.dumps(SCHEMA)
