"""The settings that decide the result, and how two configs differ in them."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.settings import DEMO, HOW, SETTINGS, TWO, leaves

from ray_ns.config import differences, results_of
from ray_ns.config.read import load


def test_what_does_not_decide_the_result_is_these_and_nothing_else(file: Path) -> None:
    kept = [path for path, _ in leaves(results_of(load(file)))]
    assert sorted(kept) == sorted(set(SETTINGS) - HOW)


def test_results_are_json_and_come_back_the_same(file: Path) -> None:
    for path in (file, DEMO):
        results = results_of(load(path))
        assert json.loads(json.dumps(results, allow_nan=False)) == results


@pytest.mark.parametrize(
    ("old", "new", "rows"),
    [
        ({}, {}, []),
        ({"a": 1}, {"a": 1.0}, []),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}, ["a.c: 2 -> 3"]),
        ({"b": 1, "a": 1}, {"a": 2, "b": 2}, ["a: 1 -> 2", "b: 1 -> 2"]),
        ({"a": 1}, {}, ["a: 1 -> None"]),
        ({}, {"a": {"b": 1}}, ["a: None -> {'b': 1}"]),
        ({"a": [1, 2]}, {"a": [2, 1]}, ["a: [1, 2] -> [2, 1]"]),
        ({"a": "1"}, {"a": 1}, ["a: '1' -> 1"]),
        ({"a": {"x": 1}}, {"a": {"y": 1}}, ["a.x: 1 -> None", "a.y: None -> 1"]),
    ],
)
def test_differences_are_told_by_dotted_path(old: Any, new: Any, rows: list[str]) -> None:
    assert differences(old, new) == rows


@pytest.mark.parametrize("setting", ["run.seed", "student.optimizer.lr", "select.threshold", "cluster.train_workers"])
def test_a_setting_that_decides_the_result_makes_a_difference(file: Path, setting: str) -> None:
    new = {"run.seed": "5", "student.optimizer.lr": "5e-1", "select.threshold": "0.5", "cluster.train_workers": "2"}
    changed = load(file, [f"{setting}={new[setting]}"])
    (row,) = differences(results_of(load(file)), results_of(changed))
    assert row.startswith(f"{setting}: ")


def test_settings_that_say_how_make_none(file: Path) -> None:
    overrides = ["run.dir=elsewhere", "label.actors=4", "cluster.cpus=2", "cluster.train_loaders=3"]
    assert differences(results_of(load(file)), results_of(load(file, overrides))) == []


def test_an_override_reaches_into_a_list_and_makes_its_own_difference(file: Path) -> None:
    plain, changed = load(file, [TWO]), load(file, [TWO, "student.1.optimizer.lr=0.5"])
    assert differences(results_of(plain), results_of(changed)) == ["student.1.optimizer.lr: 0.1 -> 0.5"]
    assert json.loads(json.dumps(results_of(plain))) == results_of(plain)


def test_first_weights_are_known_by_their_hash_and_not_by_where_they_lie(file: Path) -> None:
    def results(path: str, sha256: str) -> dict[str, Any]:
        own = [f"teacher.model.pretrained={path}", f"teacher.model.sha256={sha256}"]
        return results_of(load(file, own))

    assert results("a.safetensors", "a" * 64) == results("b/c.safetensors", "a" * 64)
    (row,) = differences(results("a.safetensors", "a" * 64), results("a.safetensors", "b" * 64))
    assert row.startswith("teacher.model.sha256: ")
