"""A machine that is taken away with notice, as spot machines are, is no failure of the training."""

from pathlib import Path

import pytest
from support.nodes import cluster
from support.tiny_run import faulty, write_tiny

pytestmark = pytest.mark.cluster


def test_a_training_whose_node_is_drained_goes_on_elsewhere_and_counts_no_failure(tmp_path: Path) -> None:
    config, notes = write_tiny(tmp_path), tmp_path / "order"
    notes.mkdir()
    words = ("teacher.steps=300", "cluster.checkpoint_steps=20", "cluster.max_failures=0", "--until", "label")
    with cluster(tmp_path / "nodes", 1, env=faulty(f"order:0.3:{notes}")) as nodes:
        running = nodes.start("ray-ns", "run", str(config), *words)
        checkpoints = tmp_path / "run/rounds/0/train/checkpoints"
        running.until(lambda: list(checkpoints.glob("*/000000020-*.json")), 200)
        nodes.add()
        nodes.nodes[1].terminate()
        assert running.end(300) == 0, running.text()
    assert len(list(notes.iterdir())) == 2, "the training ran in two processes, one after the other"
