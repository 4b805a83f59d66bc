"""The program's first and last moment: signals, the streams, and the exit code it leaves with, whatever happens."""

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
LEFT_BEHIND = "left behind"  # the name of a thread that waits for an answer nobody needs any more
STOPPED = "stopped; the same command goes on from what is committed"


def guarded(command: Callable[[], None], words: Sequence[str]) -> int:
    """Run ``command``, as asked for by the command line's ``words``, and return the exit code (``errors``).

    An error is one line on stderr, or one of JSON where ``words`` ask for it. One that nobody foresaw comes with its
    traceback. Ctrl-C, SIGTERM and SIGHUP end whatever is under way with exit code 3.
    """
    with _Stops() as stops, printed.only_door("--json" in words):
        try:
            command()
            if stops.came:  # and typer has kept it to itself
                raise KeyboardInterrupt
        except SystemExit as left:  # of -h and --version
            return left.code if isinstance(left.code, int) else 0
        except BaseException as error:
            stopped, stops.came = stops.came, True
            if stopped:  # whatever a library has made of it
                printed.tell_failure(STOPPED, ResumableError.exit_code)
                return ResumableError.exit_code
            known, trace = _known(error)
            printed.tell_failure(str(known), known.exit_code, trace)
            return known.exit_code
    return 0


def leave(code: int) -> NoReturn:
    """End the process, without waiting for a thread that may be ``LEFT_BEHIND``, as libraries do."""
    if all(thread.name != LEFT_BEHIND for thread in threading.enumerate()):
        sys.exit(code)
    os._exit(code)  # every line was flushed as it was written


class _Stops:
    """While the block runs, a signal to end raises ``KeyboardInterrupt``, a second one ends at once.

    ``came``: the next one is no longer the first.
    """

    def __init__(self) -> None:
        self.came = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "_Stops":
        for number in STOPS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                self._before[number] = signal.signal(number, self._stop)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self.came:
            os._exit(ResumableError.exit_code)
        self.came = True
        raise KeyboardInterrupt


def _known(error: BaseException) -> tuple[RayNsError, str]:
    """The error as one of ours, and where it arose if nobody foresaw it."""
    if isinstance(error, RayNsError):
        cause = error.__cause__ if isinstance(error, ResumableError | RepeatingError) else None
        return error, "".join(traceback.format_exception(cause)) if cause else ""
    if isinstance(error, OSError) and (known := of_system(error, error.filename)):
        return known, ""
    words = str(error).strip().splitlines() or ["no message"]
    return ResumableError(
        f"nobody foresaw this: {type(error).__name__}: {words[-1]}. What is committed stays; run the same command "
        f"again, and should it end here once more, report it with the lines above."
    ), "".join(traceback.format_exception(error))
