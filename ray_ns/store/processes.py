"""The identity of a process, and whether it still runs, also where its number was given to another one."""

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def this_process() -> dict[str, Any]:
    """The calling process: its host (name, boot, namespace of pids), its number and when it began."""
    boot, pids = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    facts = (boot.read_text().strip(), str(pids.readlink())) if boot.exists() else ()
    host = "/".join((socket.gethostname(), *facts))
    return {"host": host, "pid": os.getpid(), "began": _began(os.getpid())}


def runs_here(process: Mapping[str, Any]) -> bool:
    """Whether a process, by what ``this_process`` returned in it, is of this host and still runs."""
    return bool(process["host"] == this_process()["host"] and _began(process["pid"]) == process["began"])


def _began(pid: int) -> str:
    """When process ``pid`` began, in the kernel's ticks; empty where it does not run, or without /proc."""
    try:
        facts = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return "" if facts[0] in {"Z", "X"} else facts[19]  # a zombie has ended and waits to be reaped
    except (OSError, IndexError):
        return ""
