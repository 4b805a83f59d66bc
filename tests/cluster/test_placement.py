"""Work goes where its labels say: what reads and decodes to one node, teachers and training to that with the GPU."""

import json
import re
import sys
from pathlib import Path

import pytest
from support.nodes import Nodes
from support.tiny_run import write_tiny

pytestmark = pytest.mark.cluster

DECODE, GPU = {"ray-ns/decode": "true"}, {"ray-ns/gpu": "true"}
CLUSTER = {"labels": [DECODE, GPU], "gpus": [0, 1]}  # the GPU is one in name: torch sees none, and computes on the CPU
WHERE = """
import json
import ray
from ray.util.state import list_actors, list_nodes, list_tasks

ray.init(logging_level="ERROR")
labels = {it.node_id: dict(it.labels) for it in list_nodes(detail=True)}
work = [(it.class_name, it.node_id) for it in list_actors(limit=10_000)]
work += [(it.name, it.node_id) for it in list_tasks(limit=10_000) if it.type == "NORMAL_TASK"]
print(json.dumps([(name, labels[node]) for name, node in work if node]))
"""


def test_each_kind_of_work_runs_on_the_nodes_that_are_labelled_for_it(nodes: Nodes, tmp_path: Path) -> None:
    settings = {"decode_on": DECODE, "teachers_on": GPU, "train_on": GPU, "train_gpus": 1}
    done = nodes.run(
        *("ray-ns", "run", str(write_tiny(tmp_path)), "--until", "select", "label.gpus_per_actor=1"),
        *(f"cluster.{name}={json.dumps(value)}" for name, value in settings.items()),
    )
    found = json.loads(nodes.run(sys.executable, "-c", WHERE, seconds=120).stdout.splitlines()[-1])

    def where(pattern: str) -> set[str]:
        """The kinds of node on which work of such a name ran."""
        kinds = [
            [key for key in ("ray-ns/decode", "ray-ns/gpu") if key in labels]
            for name, labels in found
            if re.search(pattern, name)
        ]
        return {kind for of in kinds for kind in of or ["another"]}

    shown = sorted({f"{name} {labels}" for name, labels in found})
    assert where(r"^RayTrainWorker") == {"ray-ns/gpu"}, shown
    assert where(r"TeacherActor") == {"ray-ns/gpu"}, shown
    assert where(r"^FlatMap") == {"ray-ns/decode"}, shown
    assert where(r"^MapBatches\((?!Teacher)") == {"ray-ns/decode"}, shown
    assert where(r"^run-[0-9a-f]{6}-rounds-1-select-\w+$") == {"ray-ns/decode"}, shown
    assert "torch sees no GPU on the worker's node" in done.stderr
    assert re.search(rb"run-[0-9a-f]{6}-rounds-0-train-", nodes.http("/api/train/v2/runs/v1")), (
        "the name of the training"
    )


def test_a_wait_for_nodes_that_never_come_is_said_and_ends_the_run(nodes: Nodes, tmp_path: Path) -> None:
    done = nodes.run(
        *("ray-ns", "run", str(write_tiny(tmp_path)), "cluster.train_workers=4", "cluster.timeout_seconds=20"),
        f"cluster.train_on={json.dumps(GPU)}",
        check=False,
    )
    words = "4 CPUs wanted, 2 there, for 4 training workers on nodes with ray-ns/gpu=true"
    assert done.returncode == 3, done.stderr
    assert f"rounds/0/train: waiting: {words}, 1" in done.stderr
    assert re.search(rf"{words}, after 2\d s \(cluster.timeout_seconds = 20\)", done.stderr), done.stderr
    assert '"released"' in (tmp_path / "run/driver/heartbeat.json").read_text(), "the next driver need not wait"
