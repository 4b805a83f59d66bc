"""The number of loaders of a training worker, and which nodes a selector may ask for."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.settings import refusal

from ray_ns.config import Cluster, Settings
from ray_ns.config.read import load
from ray_ns.config.results import results_of


@pytest.mark.parametrize(
    ("loaders", "gpus", "cpus", "wanted"),
    [("auto", 0, 8, 0), ("auto", 1, 8, 7), ("auto", 1, 1, 1), ("auto", 1, 128, 16), (0, 1, 8, 0), (3, 0, 8, 3)],
)
def test_a_gpu_worker_has_the_loaders_its_machine_can_run(loaders: Any, gpus: int, cpus: int, wanted: int) -> None:
    assert Cluster(train_loaders=loaders, train_gpus=gpus).loaders(cpus) == wanted


@pytest.mark.parametrize(
    "selector",
    [{"ray-ns/gpu": "true"}, {"ray.io/market-type": "!spot"}, {"a": "in(b, c)"}, {"a": "!in(b,c)", "d": "e"}],
)
def test_a_label_selector_is_taken_and_decides_no_result(file: Path, selector: dict[str, str]) -> None:
    names = ("decode_on", "teachers_on", "train_on")
    config = load(file, [f"cluster.{name}={json.dumps(selector)}" for name in names])
    assert [getattr(config.cluster, name) for name in names] == [selector] * 3
    assert results_of(config) == results_of(load(file))
    assert Settings().of(config) == Settings().of(load(file))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{ray-ns/gpu: true}", 'found ray-ns/gpu: True; a label is text, so write it in quotes, such as ray-ns/gpu: "'),
        ('{"ray-ns/": "true"}', "found the label 'ray-ns/'"),
        ("{a: in()}", "found a: 'in()'"),
        ("{}", "null takes any node"),
        ("gpu", "cluster.train_on: found 'gpu'"),
    ],
)
def test_a_selector_that_is_none_is_refused_with_the_mend(file: Path, text: str, words: str) -> None:
    assert words in refusal(file, f"cluster.train_on={text}")
