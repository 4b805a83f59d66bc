"""A local cluster: which of Ray's processes it goes without, and that Ray is left as it was."""

import contextlib
import subprocess
import sys

import pytest
from ray._private import services
from ray._private.node import Node

from ray_ns.engine import local


def test_ray_is_itself_again_after_the_start() -> None:
    owners = dict.fromkeys(local.LEFT_OUT, Node) | {"get_node": services}
    before = {name: getattr(owner, name) for name, owner in owners.items()}
    with contextlib.suppress(KeyError), local._lean():
        assert all(getattr(owner, name) is not before[name] for name, owner in owners.items())
        raise KeyError
    assert all(getattr(owner, name) is before[name] for name, owner in owners.items())


def test_a_version_of_ray_without_these_names_starts_what_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Node, local.LEFT_OUT[0])
    monkeypatch.delattr(services, "get_node")
    with local._lean():
        assert not hasattr(Node, local.LEFT_OUT[0])
    assert not hasattr(Node, local.LEFT_OUT[0])
    assert not hasattr(services, "get_node")


def test_a_node_is_asked_for_only_when_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([{}, {}, {"node": 1}])

    class Client:
        def __init__(self, address: str) -> None:
            assert address == "here"

        def get_all_node_info(self, timeout: float) -> dict[str, int]:
            return next(answers)

    monkeypatch.setattr(services, "GcsClient", Client)
    assert local._when_ready(lambda *asked: asked)("here", "7") == ("here", "7")
    assert next(answers, None) is None
    # And where this version of Ray has no such client, as Ray itself does.
    monkeypatch.delattr(services, "GcsClient")
    assert local._when_ready(lambda *asked: asked)("here", "7") == ("here", "7")


def test_a_local_cluster_runs_tasks_without_what_is_left_out() -> None:
    code = """
import os, pathlib, sys
from ray_ns.engine import local
local.start(1, 0, 100)
import ray
from ray_ns.engine.select_parts import worker
assert ray.get(ray.remote(worker).remote())["pid"] != os.getpid()
mine = pathlib.Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
words = [pathlib.Path(f"/proc/{pid}/cmdline").read_text() for pid in mine]
assert any("raylet" in it for it in words), words
for name in ("monitor.py", "log_monitor.py", "dashboard/dashboard.py"):
    assert not any(it for it in words if name in it), name
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0
