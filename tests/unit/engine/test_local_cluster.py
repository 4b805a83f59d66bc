"""A local cluster is closed, quiet and small, and says where it cannot start."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from ray_ns.engine import local_cluster
from ray_ns.errors import InputError


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
