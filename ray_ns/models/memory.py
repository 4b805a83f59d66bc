"""Memory of processes that run networks on a CPU."""

import ctypes
import sys


def keep_memory() -> None:
    """Let this process keep freed memory for its next batch. Otherwise page faults take up to a fifth of its time.

    glibc returns every large block to the system and asks for it again; two settings of its ``mallopt`` stop that. They
    apply to the main heap only: threads use it too if MALLOC_ARENA_MAX=1 was in the environment.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        max_mmaps, trim_threshold = -4, -1
        libc.mallopt(max_mmaps, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)
