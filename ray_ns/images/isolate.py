"""Decoding that survives a decoder which hangs or crashes: it costs one image, not the job.

Images are decoded by C libraries, which may run for ever on a hostile file or end the process. Neither can be caught
within the process. So while a run of images is decoded, a file on this node is locked, and an alarm ends the process if
no image is finished for some seconds. Whoever begins a run and finds its file unlocked knows that the process before
died over it, and decodes the images one by one in a child process that may die. If the process died of something else,
this costs time and changes nothing.
"""

import contextlib
import faulthandler
import fcntl
import hashlib
import json
import os
import stat
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from ray_ns.errors import InputError
from ray_ns.images.decode import VERSION, Decode, Reason

Outcome = np.ndarray | Reason

START_SECONDS = 120.0
REARM_SECONDS = 1.0  # an alarm is a thread: too expensive to start one for every image
SECONDS = struct.Struct("<d")


class SafeDecode:
    """Decodes runs of images with ``threads`` threads; an image may take about ``seconds``.

    ``folder``: where the files of runs under way lie; all processes that may retry a run must share it.
    """

    def __init__(self, decode: Decode, seconds: float, threads: int = 1, folder: Path | None = None) -> None:
        self._decode = decode
        self._seconds = seconds
        self._threads = ThreadPoolExecutor(threads) if threads > 1 else None
        self._folder = folder or Path(tempfile.gettempdir()) / f"ray_ns-decoding-{os.getuid()}"
        _make_private(self._folder)

    def __call__(self, run: str, images: Iterable[bytes | None]) -> Iterator[Outcome]:
        """The outcome of each of ``images``, in order. ``run`` names them: the same words for the same bytes."""
        trace = self._folder / hashlib.sha256(f"{VERSION} {self._decode} {run}".encode()).hexdigest()
        died_before = trace.exists()
        with trace.open("ab") as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # another job is decoding the same images, and the file is its own
                yield from self._here(images)
                return
            deadly = False
            try:
                for outcome in isolated(self._decode, self._seconds, images) if died_before else self._here(images):
                    deadly |= outcome is Reason.CRASHES or outcome is Reason.TOO_SLOW
                    yield outcome
            finally:
                if not (
                    died_before and deadly
                ):  # else keep the file: the next process should not try these images itself
                    trace.unlink(missing_ok=True)

    def _here(self, images: Iterable[bytes | None]) -> Iterator[Outcome]:
        decode_all: Callable[..., Iterator[Outcome]] = self._threads.map if self._threads else map
        armed = time.monotonic()
        _end_process_in(self._seconds)
        try:
            for outcome in decode_all(self._decode, images):
                yield outcome
                now = time.monotonic()
                if now - armed > REARM_SECONDS:
                    armed = now
                    _end_process_in(self._seconds)
        finally:
            faulthandler.cancel_dump_traceback_later()


def _make_private(folder: Path) -> None:
    """Make ``folder``, or use the one that is there if only this user has access to it.

    Its name is predictable, since later processes must find it. So in a shared place another user could put a link or
    a folder of theirs there. Raises ``InputError``.
    """
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700, parents=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        what = "a link" if stat.S_ISLNK(found.st_mode) else "no folder" if not stat.S_ISDIR(found.st_mode) else ""
        what = what or f"of user {found.st_uid} with mode {stat.S_IMODE(found.st_mode):o}"
        raise InputError(
            f"{folder}: is {what}; expected a folder of user {os.geteuid()} with mode 700. Remove it, or set TMPDIR to "
            f"a folder of your own."
        )


def isolated(decode: Decode, seconds: float, images: Iterable[bytes | None]) -> Iterator[Outcome]:
    """The outcome of each image, decoded one by one in a child process that is replaced when it dies.

    ``too_slow`` if it takes longer than ``seconds``; ``crashes_decoder`` if two children died over it: the first may
    have been killed for another reason, such as by the kernel when memory ran out.
    """
    with contextlib.ExitStack() as children:
        child: _Child | None = None
        for data in images:
            deaths = 0
            while True:
                child = child or children.enter_context(_Child(decode))
                try:
                    outcome = child(data or b"", seconds)
                    break
                except TimeoutError:
                    outcome = Reason.TOO_SLOW
                except (EOFError, OSError):
                    deaths += 1
                    outcome = Reason.CRASHES
                children.close()
                child = None
                if outcome is Reason.TOO_SLOW or deaths == 2:
                    break
            yield outcome


class _Child(contextlib.AbstractContextManager["_Child"]):
    """A process of its own that decodes what it is sent."""

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._connection, theirs = Pipe()
        # A plain command instead of multiprocessing, which would import this process's main module (Ray's) in the
        # child, or fork a process that has threads.
        command = [sys.executable, "-m", __name__, str(theirs.fileno())]
        command.append(json.dumps(vars(decode)))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        with theirs:
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment)  # noqa: S603
        try:
            self._wait(START_SECONDS)
        except (EOFError, OSError) as error:
            self.__exit__()
            raise RuntimeError(f"a process for decoding alone did not start ({error or 'it ended'})") from error

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._connection.close()

    def __call__(self, data: bytes, seconds: float) -> Outcome:
        """The image's outcome. Raises ``TimeoutError``; ``EOFError`` or ``OSError`` where the process died."""
        self._connection.send_bytes(SECONDS.pack(seconds) + data)
        found = self._wait(seconds)
        side, channels = self._decode.size, self._decode.channels
        if len(found) == side * side * channels:
            return np.frombuffer(found, np.uint8).reshape(side, side, channels)
        return Reason(found.decode())

    def _wait(self, seconds: float) -> bytes:
        if not self._connection.poll(seconds):
            raise TimeoutError(f"no answer within {seconds:g} s")
        return self._connection.recv_bytes()


def _serve(connection: Connection, decode: Decode) -> None:
    """Decode what comes until the parent is gone."""
    connection.send_bytes(b"ready")
    with contextlib.suppress(EOFError):
        while True:
            message = connection.recv_bytes()
            _end_process_in(2 * SECONDS.unpack_from(message)[0])  # should the parent die meanwhile
            outcome = decode(message[SECONDS.size :])
            faulthandler.cancel_dump_traceback_later()
            connection.send_bytes(outcome.encode() if isinstance(outcome, Reason) else outcome.tobytes())


def _end_process_in(seconds: float) -> None:
    """End this process after so many seconds unless cancelled, even if a decoder never releases Python's lock."""
    faulthandler.dump_traceback_later(seconds, exit=True, file=2)


if __name__ == "__main__":
    _serve(Connection(int(sys.argv[1])), Decode(**json.loads(sys.argv[2])))
