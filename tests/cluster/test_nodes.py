"""The several nodes that the other tests stand on: their own addresses, disks, labels, and none of it left over."""

import sys
from pathlib import Path

import pytest
from support import namespaces
from support.nodes import Nodes, cluster

pytestmark = pytest.mark.cluster
LOOK = """
import os, sys, ray
folder = sys.argv[1]
ray.init(logging_level="ERROR")
@ray.remote
def seen():
    return ray.util.get_node_ip_address(), sorted(os.listdir(folder)), ray.get_gpu_ids()
there = ray.get(seen.options(label_selector={"kind": "gpu"}, num_gpus=1).remote())
assert there == ("10.77.0.3", [], [0]), there
assert sorted(os.listdir(folder)) == ["image"]
"""


def test_nodes_are_apart_and_leave_nothing(tmp_path: Path) -> None:
    shared = tmp_path / "data"
    shared.mkdir()
    (shared / "image").write_text("")
    with cluster(tmp_path / "nodes", 1, labels=[{"kind": "gpu"}], gpus=[1], own=[shared]) as nodes:
        init = nodes.space.init
        nodes.run(sys.executable, "-c", LOOK, str(shared), seconds=120)
        done = nodes.submit("sh", "-c", "ls; exit 3", working_dir=shared, check=False)
        assert (done.returncode, "image" in done.stdout) == (1, True), done.stdout
        other = nodes.add()
        assert alive(nodes) == 3
        first = nodes.nodes[1]
        first.terminate()
        first.wait()
        other.kill()
    assert not Path(f"/proc/{init}").exists()
    assert not nodes.ray_folder.exists()


def alive(nodes: Nodes) -> int:
    return nodes.http("/nodes?view=summary").count(b'"state": "ALIVE"')


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert namespaces.missing() is None
    monkeypatch.setenv("PATH", "")
    assert namespaces.missing() == "no unshare"
