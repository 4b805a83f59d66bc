"""A signal stops a run wherever it comes: exit code 3 and one line, whatever the code holds that it interrupts."""

import fcntl
import os
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from support.in_process import undated

from ray_ns.exits import STOPPED

# A run in a process of its own, which is given a place and the number of a signal.
CODE = """
import os, sys, threading
from ray_ns import exits
from ray_ns.config import Cluster, Config
from ray_ns.engine import run as engine
from ray_ns.observe import Reporter
from ray_ns.store.lease import Lease
from ray_ns.store.objects import LocalStore

place, number = sys.argv[1], int(sys.argv[2])
engine.LEAVE_SECONDS = 1.0


def work():
    store = LocalStore(place)
    config = Config.model_construct(_fields_set=set(), cluster=Cluster())
    with engine.Run(config, store, {}, (), Lease(store), Reporter("plain")) as run:
        run.lease.check()
        MOMENT
        run.reporter.note("went on")


sys.exit(exits.guarded(work, ["run"]))
"""
# More than the pipe holds: the write waits, with the stream's lock held.
WRITING = 'run.reporter.note("x" * 300_000)'
# A lock that is wanted to leave too, as that of a store's pool of connections.
HOLDING = """lock = threading.Lock()
        run.reporter.sinks.append(lambda event: lock.acquire())
        with lock: os.kill(os.getpid(), number)"""
# Ray's processes still write into the folder that is taken away: it is not empty when it should be.
WRITTEN_TO = """
        def full(*path, **words): raise OSError(errno.ENOTEMPTY, "Directory not empty")
        import errno
        run.scratch()
        os.rmdir = full
        os.kill(os.getpid(), number)"""


def begun(moment: str, number: signal.Signals, place: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", CODE.replace("MOMENT", moment), str(place), str(int(number))]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=buffered)


def ends_well(process: "subprocess.Popen[str]") -> None:
    _, said = process.communicate(timeout=120)
    assert process.returncode == 3, said[-2000:]
    assert undated(said, 3).endswith(f"ray-ns: {STOPPED}\n"), said[-2000:]
    assert "Traceback" not in said
    assert "went on" not in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_line_is_written(number: signal.Signals, tmp_path: Path) -> None:
    process = begun(WRITING, number, tmp_path / "run")
    assert process.stderr is not None
    room = fcntl.fcntl(process.stderr, fcntl.F_GETPIPE_SZ)
    for _ in range(1200):
        if int.from_bytes(fcntl.ioctl(process.stderr, termios.FIONREAD, bytes(4)), sys.byteorder) == room:
            break
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    ends_well(process)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_something_is_held_that_is_wanted_to_leave(number: signal.Signals, tmp_path: Path) -> None:
    ends_well(begun(HOLDING, number, tmp_path / "run"))


def test_a_signal_while_others_write_into_the_folder_that_is_taken_away(tmp_path: Path) -> None:
    ends_well(begun(WRITTEN_TO, signal.SIGTERM, tmp_path / "run"))
