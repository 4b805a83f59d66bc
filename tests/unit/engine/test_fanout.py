"""Tasks on Ray and tasks in this process: one contract, so that what a test runs in-process is what a run does."""

import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from support import fan_out_contract
from support.fan_out import InProcess
from support.fan_out_contract import CONTRACT, ON_RAY_ALONE

from ray_ns.config import Config
from ray_ns.engine.fanout import Here, Tasks


@pytest.mark.parametrize("check", CONTRACT, ids=lambda check: check.__name__)
def test_in_this_process(check: Callable[[Tasks], None]) -> None:
    check(InProcess())


@pytest.mark.parametrize("check", CONTRACT, ids=lambda check: check.__name__)
def test_in_this_process_for_a_small_run(check: Callable[[Tasks], None], config: Config) -> None:
    check(Here(SimpleNamespace(config=config)))  # type: ignore[arg-type]


@pytest.mark.ray
def test_on_ray() -> None:
    command = [sys.executable, str(fan_out_contract.__file__)]
    done = subprocess.run(command, capture_output=True, timeout=300, text=True)
    assert done.returncode == 0, done.stderr
    assert [check.__name__ for check in (*CONTRACT, *ON_RAY_ALONE) if check.__name__ not in done.stdout] == []
