"""A process that outlives a killed driver and ends the rest of the driver's own Ray cluster.

When a driver is killed, Ray's workers notice within two seconds; but workers that are just starting take half a minute,
and Ray's agents never end. A process belongs to the cluster if it has a file of the session's folder open for writing:
all of Ray's processes log there, and processes that they start, such as loaders of images, inherit the open file.

It runs as a file with the standard library alone, so that starting it costs some hundredths of a second.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

SECONDS = 10.0
PAUSE = 0.1


def watch(session: str) -> "subprocess.Popen[bytes]":
    """Start the reaper of the cluster with this session folder. It ends by itself after this process has ended."""
    command = [sys.executable, "-I", "-S", __file__, session]
    # The other end stays open until the kernel closes it: Python would close it on exit, before this process is gone.
    ends, _ = os.pipe()
    try:
        # In a session of its own, so that Ctrl-C in the terminal does not end it with the driver.
        return subprocess.Popen(  # noqa: S603
            command, stdin=ends, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
    finally:
        os.close(ends)


def left_over(session: str) -> Iterator[int]:
    """The processes that have a file of the session's folder open for writing; others may read there."""
    for handle in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile, or is another user's
            if os.readlink(handle).startswith(f"{session}/"):
                facts = (handle.parent.parent / "fdinfo" / handle.name).read_text().split()
                if int(facts[facts.index("flags:") + 1], 8) & os.O_ACCMODE != os.O_RDONLY:
                    yield int(handle.parts[2])


def reap(session: str) -> None:
    """Kill what is left over until none is found twice in a row."""
    until, quiet = time.monotonic() + SECONDS, 0
    while quiet < 2 and time.monotonic() < until:
        found = set(left_over(session))
        quiet = 0 if found else quiet + 1
        for pid in found:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(PAUSE)


if __name__ == "__main__":
    sys.stdin.buffer.read()  # ends with the driver, however it ends
    reap(sys.argv[1])
