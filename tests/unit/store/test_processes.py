"""A process is known by its host, its number and when it began."""

import os
import subprocess
import sys

import pytest
from support.leases import dead_pid

from ray_ns.store.processes import runs_here, this_process

WHO = "from ray_ns.store.processes import this_process; print(this_process(), flush=True); input()"


def test_this_process_runs_here() -> None:
    assert this_process()["pid"] == os.getpid()
    assert runs_here(this_process())


@pytest.mark.parametrize("other", [{"host": "elsewhere"}, {"began": "1"}, {"pid": dead_pid()}])
def test_another_host_a_number_given_again_and_a_dead_process_do_not_run_here(other: dict[str, object]) -> None:
    assert not runs_here({**this_process(), **other})


def test_a_zombie_does_not_run() -> None:
    child = subprocess.Popen([sys.executable, "-c", WHO], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        who = eval(child.stdout.readline())
        assert runs_here(who)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert not runs_here(who)
    finally:
        child.kill()
        child.communicate()
