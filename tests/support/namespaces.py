"""Linux namespaces for tests: a network with loopback alone, and processes that all end with it."""

import contextlib
import ctypes
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

_LIBC = ctypes.CDLL(None, use_errno=True)
# The first process of the namespace: the kernel ends all others with it, and it ends with the pipe to who made it.
# Ignored, SIGCHLD lets the kernel bury the orphans that come to it.
_INIT = """
import signal, subprocess, sys
for words in [["link", "set", "lo", "up"], *(["addr", "add", it + "/32", "dev", "lo"] for it in sys.argv[1:])]:
    subprocess.run(["ip", *words], check=True)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
print("ready", flush=True)
sys.stdin.read()
"""


def missing() -> str | None:
    """What of it this machine lacks; None where all is there."""
    if os.geteuid():
        return "not root"
    for program in ("unshare", "nsenter", "ip", "mount"):
        if shutil.which(program) is None:
            return f"no {program}"
    done = subprocess.run(["unshare", "-n", "-m", "-p", "-f", "true"], capture_output=True, text=True)
    return f"unshare is refused ({done.stderr.strip()})" if done.returncode else None


def children(pid: int) -> list[int]:
    """The processes that a process has started and that live."""
    try:
        return [int(it) for it in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def descendants(pid: int) -> list[int]:
    """A process and all below it, in the order of their making."""
    found = [pid]
    for it in found:
        found += children(it)
    return found


def inner(pid: int) -> int:
    """The process behind an ``nsenter`` or ``unshare``, which fork it and wait."""
    deadline = time.monotonic() + 10
    while not children(pid):
        assert time.monotonic() < deadline, f"process {pid} has no child"
        time.sleep(0.01)
    return children(pid)[0]


def kill(process: "subprocess.Popen[Any]") -> None:
    """SIGKILL for a process, and for all below it."""
    for pid in reversed(descendants(process.pid)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


class Namespace:
    """An open namespace. ``init``: its first process, as the outside sees it."""

    def __init__(self, init: int) -> None:
        self.init = init

    def start(self, command: list[str], own: Sequence[tuple[Path, Path]] = (), **options: Any) -> "subprocess.Popen":
        """``Popen`` inside. ``own``: folders laid over others, for this process and what it starts alone."""
        words = ["nsenter", f"--target={self.init}", "--net", "--pid", "--mount", "--wd=."]
        if own:
            binds = [f"mount --bind {shlex.quote(str(a))} {shlex.quote(str(b))}" for a, b in own]
            words += ["unshare", "--mount", "sh", "-c", " && ".join([*binds, 'cd "$PWD"', 'exec "$@"']), "sh"]
        return subprocess.Popen([*words, *command], stdin=subprocess.DEVNULL, **options)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """While the block runs, this thread's sockets and the processes that it starts are inside."""
        kinds = ("net", "pid")
        with contextlib.ExitStack() as stack:
            back = [stack.enter_context(open(f"/proc/thread-self/ns/{kind}")) for kind in kinds]
            there = [stack.enter_context(open(f"/proc/{self.init}/ns/{kind}")) for kind in kinds]
            _join(there)
            try:
                yield
            finally:
                _join(back)


def _join(files: list[Any]) -> None:
    for file in files:
        if _LIBC.setns(file.fileno(), 0):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), file.name)


@contextlib.contextmanager
def namespace(addresses: Sequence[str]) -> Iterator[Namespace]:
    """A network whose loopback has these addresses too; at the end every process in it is gone."""
    unshared = subprocess.Popen(
        [
            *("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
            *(sys.executable, "-c", _INIT, *addresses),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert unshared.stdout is not None
    assert unshared.stdout.readline() == "ready\n"
    init = inner(unshared.pid)
    space = os.stat(f"/proc/{init}/ns/pid").st_ino
    try:
        yield Namespace(init)
    finally:
        unshared.communicate(timeout=60)  # closes the pipe, and returns when the kernel has ended them all
        left = [pid for pid in _pids() if _space_of(pid) == space]
        assert not left, f"processes that outlived their namespace: {left}"


def _pids() -> list[int]:
    return [int(it.name) for it in Path("/proc").iterdir() if it.name.isdecimal()]


def _space_of(pid: int) -> int | None:
    with contextlib.suppress(OSError):
        return os.stat(f"/proc/{pid}/ns/pid").st_ino
    return None
