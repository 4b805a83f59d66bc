"""Who a process is, and whether it still runs: told apart from another one that was given its number."""

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def this_process() -> dict[str, Any]:
    """Who asks: the host (its name, its boot, its namespace of pids), the process and when that process began."""
    boot, pids = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    facts = (boot.read_text().strip(), str(pids.readlink())) if boot.exists() else ()
    host = "/".join((socket.gethostname(), *facts))
    return {"host": host, "pid": os.getpid(), "began": _began(os.getpid())}


def runs_here(process: Mapping[str, Any]) -> bool:
    """Whether what ``this_process`` returned elsewhere is a process of this host that still runs."""
    return bool(process["host"] == this_process()["host"] and _began(process["pid"]) == process["began"])


def _began(pid: int) -> str:
    """When process ``pid`` began, in the kernel's ticks; empty where none such lives (or no /proc)."""
    try:
        facts = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return "" if facts[0] in {"Z", "X"} else facts[19]  # a zombie is dead, and only waits to be reaped
    except (OSError, IndexError):
        return ""
