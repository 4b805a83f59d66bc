"""A process that outlives its driver by a second and ends what is left of the driver's own Ray cluster.

Where a driver is killed, Ray's workers notice within two seconds, but those that are just starting take half a minute,
and Ray's agents never end. What belongs to the cluster is known by where its output goes: all of Ray's processes write
into the session's folder, and whoever they start, such as a loader of images, inherits the open file.

It is run as a file, with nothing but the standard library, so that it costs some hundredths of a second.
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
    """Start it for the cluster whose session's folder this is; it goes by itself when this process has ended."""
    command = [sys.executable, "-I", "-S", __file__, session]
    # The other end is closed by the kernel alone: Python would do it on its way out, while this process still lives.
    ends, _ = os.pipe()
    try:
        # In a session of its own: what a terminal sends to all of the driver's processes is not for this one.
        return subprocess.Popen(  # noqa: S603
            command, stdin=ends, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
    finally:
        os.close(ends)


def left_over(session: str) -> Iterator[int]:
    """The processes that hold a file of the session's folder open to write it; not who merely reads there."""
    for handle in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile, or is another user's
            if os.readlink(handle).startswith(f"{session}/"):
                facts = (handle.parent.parent / "fdinfo" / handle.name).read_text().split()
                if int(facts[facts.index("flags:") + 1], 8) & os.O_ACCMODE != os.O_RDONLY:
                    yield int(handle.parts[2])


def reap(session: str) -> None:
    """End them until none is found twice in a row."""
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
