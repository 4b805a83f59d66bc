"""A local cluster: which of Ray's processes it goes without, and that Ray is left as it was."""

import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from ray._private import services, worker
from ray._private.node import Node

from ray_ns.engine import local_cluster
from ray_ns.errors import InputError


def test_ray_is_itself_again_after_the_start() -> None:
    owners = dict.fromkeys(local_cluster.LEFT_OUT, Node) | {"get_node": services, "connect": worker}
    before = {name: getattr(owner, name) for name, owner in owners.items()}
    with contextlib.suppress(KeyError), local_cluster._lean():
        assert all(getattr(owner, name) is not before[name] for name, owner in owners.items())
        raise KeyError
    assert all(getattr(owner, name) is before[name] for name, owner in owners.items())


def test_a_version_of_ray_without_these_names_starts_what_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Node, local_cluster.LEFT_OUT[0])
    monkeypatch.delattr(services, "get_node")
    with local_cluster._lean():
        assert not hasattr(Node, local_cluster.LEFT_OUT[0])
    assert not hasattr(Node, local_cluster.LEFT_OUT[0])
    assert not hasattr(services, "get_node")


def test_a_node_is_asked_for_only_when_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([{}, {}, {"node": 1}])

    class Client:
        def __init__(self, address: str) -> None:
            assert address == "here"

        def get_all_node_info(self, timeout: float) -> dict[str, int]:
            return next(answers)

    monkeypatch.setattr(services, "GcsClient", Client)
    assert local_cluster._when_ready(lambda *asked: asked)("here", "7") == ("here", "7")
    assert next(answers, None) is None
    # And where this version of Ray has no such client, as Ray itself does.
    monkeypatch.delattr(services, "GcsClient")
    assert local_cluster._when_ready(lambda *asked: asked)("here", "7") == ("here", "7")


def test_one_line_of_rays_is_left_out_and_no_other(capfd: pytest.CaptureFixture[str]) -> None:
    def connect(words: str, *, fails: bool) -> str:
        os.write(2, b"logging.cc:303: Set ray log level from environment variable RAY_BACKEND_LOG_LEVEL to 3\n")
        print(words, file=sys.stderr)
        if fails:
            raise KeyError(words)
        return words

    assert local_cluster._unannounced(connect)("well", fails=False) == "well"
    with pytest.raises(KeyError):
        local_cluster._unannounced(connect)("badly", fails=True)
    print("again", file=sys.stderr)
    assert capfd.readouterr().err.split() == ["well", "badly", "again"]


@pytest.mark.parametrize("before", ["", "import ray"])
def test_a_local_cluster_is_closed_quiet_and_goes_without_what_is_left_out(before: str) -> None:
    code = f"""
import os, pathlib, sys
{before}
from ray_ns.engine import local_cluster
local_cluster.start(1, 0, 100)
import ray
from support.listeners import doors_of, open_doors
policy, pid = ray.get(ray.remote(lambda: (os.environ["OMP_WAIT_POLICY"], os.getpid())).remote())
assert pid != os.getpid()
assert policy == "PASSIVE"
assert doors_of(os.getpid()) > 4
assert not open_doors(os.getpid()), open_doors(os.getpid())
assert os.environ["RAY_AUTH_TOKEN"] != "known"
mine = pathlib.Path(f"/proc/{{os.getpid()}}/task/{{os.getpid()}}/children").read_text().split()
words = [pathlib.Path(f"/proc/{{pid}}/cmdline").read_text() for pid in mine]
assert any("raylet" in it for it in words), words
for name in ("monitor.py", "log_monitor.py", "dashboard/dashboard.py"):
    assert not any(it for it in words if name in it), name
"""
    # As on a user's machine that has it otherwise: what is closed stays closed.
    env = {
        **os.environ,
        "RAY_AUTH_MODE": "disabled",
        "RAY_AUTH_TOKEN": "known",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    env.pop("OMP_WAIT_POLICY", None)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_folder_too_long_for_rays_sockets_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    longest = local_cluster.SOCKET_BYTES - len(local_cluster.SOCKET) - len("//ray")
    monkeypatch.setenv("TMPDIR", f"/{'x' * longest}")
    local_cluster.check_folder()
    monkeypatch.setenv("TMPDIR", f"/{'x' * (longest + 1)}")
    with pytest.raises(InputError, match=r"x/ray: too long by 1 bytes .* RAY_TMPDIR=/tmp"):
        local_cluster.check_folder()
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    local_cluster.check_folder()


@pytest.mark.parametrize("kind", ["file", "of another user"])
def test_a_folder_that_cannot_be_written_is_refused(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        monkeypatch.setenv("RAY_TMPDIR", short)
        local_cluster.check_folder()
        if kind == "file":
            (Path(short) / "ray").write_text("x")
        else:
            (Path(short) / "ray").mkdir()
            monkeypatch.setattr(os, "access", lambda path, mode: not str(path).endswith("/ray"))
        with pytest.raises(InputError, match=r"cannot be written by this user.*Set RAY_TMPDIR"):
            local_cluster.check_folder()
