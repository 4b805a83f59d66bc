"""How a process that runs networks on a CPU keeps its memory."""

import ctypes
import sys


def keep_memory() -> None:
    """Let this process keep freed memory for its next batch: up to a fifth of its time is page faults else.

    glibc gives every large block back to the system and takes it anew; these two settings of its ``mallopt`` stop it.
    They hold for its main heap: threads have others unless MALLOC_ARENA_MAX=1 was in the environment.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        max_mmaps, trim_threshold = -4, -1
        libc.mallopt(max_mmaps, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)
