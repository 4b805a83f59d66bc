"""Leases in tests: another driver's, as it left them on disk."""

import subprocess
from collections.abc import Callable
from typing import Any

from ray_ns.seals import canonical, seal
from ray_ns.store.lease import HEARTBEAT, Lease
from ray_ns.store.objects import LocalStore
from ray_ns.store.processes import this_process

Take = Callable[..., Lease]


def held_by(store: LocalStore, epoch: int, **who: Any) -> None:
    """Epoch ``epoch`` as another driver left it on disk."""
    holder = {"lease": f"lease {epoch}", **this_process(), **who}
    assert store.put_if_absent(f"driver/{epoch:06d}.json", seal({"epoch": epoch, **holder}))
    store.put(HEARTBEAT, canonical({"epoch": epoch, "time": 1.0, **holder}))


def dead_pid() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid
