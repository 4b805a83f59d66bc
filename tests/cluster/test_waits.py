"""A training that wants more workers than the cluster has waits for them, says so, and goes on when they come."""

import time
from pathlib import Path

import pytest
from support.nodes import Nodes
from support.tiny_run import write_tiny

pytestmark = pytest.mark.cluster
CLUSTER = {"workers": 1}
SECONDS = 150


def test_a_training_waits_for_a_node_that_joins_late(nodes: Nodes, tmp_path: Path) -> None:
    words = ("run", str(write_tiny(tmp_path)), "cluster.train_workers=4", "--until", "label")
    started = nodes.start("ray-ns", *words)
    started.until(lambda: "waiting: " in started.text(), 120)
    time.sleep(SECONDS)
    assert started.runs(), started.text()
    assert not list((tmp_path / "run").glob("rounds/0/train/checkpoints/*"))
    nodes.add()
    assert started.end(200) == 0, started.text()
    told = [line for line in started.text().splitlines() if "waiting: " in line]
    assert "4 CPUs wanted, 2 there" in told[0], told
    assert len(told) <= SECONDS / 10 + 10, "a line in 10 s at most"
