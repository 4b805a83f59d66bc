"""How the program starts and ends: signals, output streams and exit codes."""

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, NoReturn

from ray_ns import printed
from ray_ns.errors import RayNsError, RepeatingError, ResumableError, of_system

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_guarding: list["_Stops"] = []  # those under way
LONG = frozenset({"run", "select", "predict", "evaluate", "ingest"})  # their stderr is a log, where it is no terminal
LEFT_BEHIND = "left behind"  # name of threads that wait for an answer which is no longer needed
STOPPED = "stopped; the same command goes on from what is committed"


def guarded(command: Callable[[], None], words: Sequence[str]) -> int:
    """Run ``command`` with the command line's ``words`` and return the exit code (``errors``).

    An error is printed as one line on stderr; as JSON if ``words`` ask for it. An unexpected error is printed with its
    traceback. Ctrl-C, SIGTERM and SIGHUP stop the work; the exit code is then 3.
    """
    with _Stops() as stops, printed.only_door("--json" in words, log=not LONG.isdisjoint(words[:1])):
        try:
            command()
            if stops.came:  # typer has swallowed the KeyboardInterrupt
                raise KeyboardInterrupt
        except SystemExit as left:  # of -h and --version
            return left.code if isinstance(left.code, int) else 0
        except BaseException as error:
            stopped, stops.came = stops.came, True
            if stopped:  # whatever error a library made of it
                printed.tell_failure(STOPPED, ResumableError.exit_code)
                return ResumableError.exit_code
            ours, trace = known(error)
            printed.tell_failure(str(ours), ours.exit_code, trace)
            return ours.exit_code
    return 0


def is_program() -> bool:
    """Whether this process is the program ``ray-ns``; else it is somebody's Python, which handles signals itself."""
    return bool(_guarding)


def leave(code: int) -> NoReturn:
    """End the process without waiting for threads that are ``LEFT_BEHIND``; a normal exit would wait."""
    if all(thread.name != LEFT_BEHIND for thread in threading.enumerate()):
        sys.exit(code)
    os._exit(code)  # every line was flushed as it was written


class _Stops:
    """While the block runs, a first signal to end raises ``KeyboardInterrupt``; a second one ends the process at once.

    ``came``: the first signal has come.
    """

    def __init__(self) -> None:
        self.came = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "_Stops":
        _guarding.append(self)
        for number in STOPS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                self._before[number] = signal.signal(number, self._stop)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        _guarding.remove(self)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self.came:
            os._exit(ResumableError.exit_code)
        self.came = True
        raise KeyboardInterrupt


def known(error: BaseException) -> tuple[RayNsError, str]:
    """The error as one of ours, and the traceback if it is unexpected."""
    if isinstance(error, RayNsError):
        cause = error.__cause__ if isinstance(error, ResumableError | RepeatingError) else None
        return error, "".join(traceback.format_exception(cause)) if cause else ""
    if isinstance(error, OSError) and (ours := of_system(error, error.filename)):
        return ours, ""
    words = str(error).strip().splitlines() or ["no message"]
    return ResumableError(
        f"unexpected error: {type(error).__name__}: {words[-1]}. What is committed stays. Run the same command again; "
        f"if it fails again, report it with the lines above."
    ), "".join(traceback.format_exception(error))
