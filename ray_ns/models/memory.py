"""Memory of processes that run networks on a CPU."""

import ctypes
import resource
import sys
from pathlib import Path


def keep_memory() -> None:
    """Let this process keep freed memory for its next batch. Otherwise page faults take up to a fifth of its time.

    glibc returns every large block to the system and asks for it again; two settings of its ``mallopt`` stop that. They
    apply to the main heap only: threads use it too if MALLOC_ARENA_MAX=1 was in the environment.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        max_mmaps, trim_threshold = -4, -1
        libc.mallopt(max_mmaps, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)


def forget_peak() -> bool:
    """Let ``peak_mb`` count from now on, without what was freed and kept; whether that is possible here."""
    try:
        if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
            libc.malloc_trim(0)
            return Path("/proc/self/clear_refs").write_text("5") > 0  # forgets the peak (proc(5))
    except OSError:  # not in every container
        pass
    return False


def peak_mb() -> int:
    """The most memory that this process has had, MB: since ``forget_peak``, where that could do it."""
    if sys.platform == "linux":
        told = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(told["VmHWM"].split()[0]) // 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 2**20  # bytes on macOS
