"""Which workers a run has, what they ask of a node, and which nodes hold them."""

from typing import Any

import pytest

from ray_ns.config import Config
from ray_ns.engine import placement
from ray_ns.engine.placement import Node

GPU = {"ray-ns/gpu": "true"}


def changed(config: Config, **sections: Any) -> Config:
    return Config.model_validate({**config.model_dump(), **sections})


def test_the_kinds_of_worker_and_where_they_go(config: Config) -> None:
    label = {"actors": 2, "gpus_per_actor": 0.5}
    cluster = {"train_workers": 2, "train_threads": 2, "train_gpus": 1, "decode_on": {"a": "b"}, "train_on": GPU}
    config = changed(config, label=label, cluster=cluster)
    reads, teachers, trains = placement.shapes(config)
    assert reads.in_words == "1 CPU task (1 CPU each) on nodes with a=b"
    assert teachers.in_words == "2 teacher actors (0.5 GPUs each)"
    assert trains.in_words == "2 training workers (2 CPUs and 1 GPU each) on nodes with ray-ns/gpu=true"
    assert (reads.on, teachers.on, trains.on) == ("cluster.decode_on", "cluster.teachers_on", "cluster.train_on")


@pytest.mark.parametrize(
    ("asked", "value", "wanted"),
    [
        ("true", "true", True),
        ("true", "false", False),
        ("true", None, False),
        ("!true", "false", True),
        ("!true", "true", False),
        ("!true", None, True),
        ("in(a, b)", "b", True),
        ("in(a,b)", "c", False),
        ("in(a, b)", None, False),
        ("!in(a, b)", "a", False),
        ("!in(a, b)", None, True),
    ],
)
def test_a_selector_matches_as_in_ray(asked: str, value: str | None, wanted: bool) -> None:
    assert placement.matches({"key": asked}, {} if value is None else {"key": value}) is wanted


def test_each_worker_needs_a_node_of_its_size_not_a_share_of_the_sum(config: Config) -> None:
    config = changed(config, cluster={"train_workers": 1, "train_threads": 4, "train_on": GPU})
    trains = placement.shapes(config)[-1]
    small, large, elsewhere = Node("a", GPU, 2, 0), Node("b", GPU, 4, 0), Node("c", {}, 64, 0)
    assert placement.held_by_all(trains, [small, small, elsewhere]) == 0
    assert placement.held_by_all(trains, [small, large]) == 1


def test_a_local_cluster_has_one_node_and_takes_all() -> None:
    assert placement.options(GPU, local=True) == placement.options(None, local=False) == {}
    assert placement.options(GPU, local=False) == {"label_selector": GPU}


def test_labels_that_a_local_cluster_does_not_heed_are_named(config: Config) -> None:
    assert placement.unused(config) is None
    config = changed(config, cluster={"decode_on": GPU, "train_on": GPU})
    assert str(placement.unused(config)).startswith("cluster.decode_on, cluster.train_on: the cluster of this process")
