r"""All output of the program: text for people, JSON for machines.

Names of files, tar members, classes and columns, config values and messages of libraries come from others. Characters
in them that are not printable (line ends, terminal escapes, direction overrides, lone surrogates) are written as
``\x1b`` or ``\u202e``. So no name can control a terminal, forge a line or hide. JSON escapes them anyway.
"""

import contextlib
import errno
import io
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TextIO

from ray_ns.errors import ResumableError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


class _Door:
    """Where output goes. ``out``, ``err``: the real streams while ``sys`` has ``_Strays``; ``live``: the live line.

    ``log``: stderr is the log of a long command: its lines have the time, and a failure says the exit code.
    """

    out: TextIO | None = None
    err: TextIO | None = None
    for_machines = False
    log = False
    live: "Progress | None" = None


def plain(text: object) -> str:
    """``text`` on one line; characters that are not printable are escaped as in a Python string."""
    words = str(text)
    return words if words.isprintable() else "".join(map(_escaped, words))


def _escaped(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()


def say(line: str) -> None:
    """Print one line of a result on stdout."""
    _write(_results(), plain(line))


def give(value: Any) -> None:
    """Print a result for machines: one line of JSON on stdout, in ASCII."""
    _write(_results(), json.dumps(value))


def now() -> str:
    """The time (UTC) for machines, in ISO 8601: ``2026-11-30T00:42:16.125Z``."""
    seconds, milliseconds = divmod(time.time_ns() // 1_000_000, 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{milliseconds:03}Z"


def tell(line: str, event: str = "note", dated: bool = False) -> None:
    """Print one line that is no result, on stderr; as JSON with ``event`` if the program writes for machines.

    ``dated``: with the time (UTC) before it, unless stderr is a terminal; so is every line of a long command.
    """
    if _Door.for_machines:
        tell_event({"event": event, "text": line})
    elif _Door.live is not None:
        from rich.text import Text

        _Door.live.console.print(Text(plain(line)), soft_wrap=True)
    else:
        time_ = (
            time.strftime("%Y-%m-%d %H:%M:%S ", time.gmtime()) if _is_log() or (dated and not _on_terminal()) else ""
        )
        _write(_notes(), time_ + plain(line))


def tell_event(value: Mapping[str, Any]) -> None:
    """Print an event for machines: one line of JSON on stderr, in ASCII, which begins with the ``time``."""
    _write(_notes(), json.dumps({"time": now(), **value}))


def tell_failure(line: str, code: int, trace: str = "") -> None:
    """Print why the program exits with ``code``. ``trace``: the traceback of an unexpected error."""
    show_live(None)
    if _Door.for_machines:
        tell_event({"event": "error", "text": line, "exit_code": code} | ({"traceback": trace} if trace else {}))
        return
    for words in trace.rstrip("\n").split("\n") if trace else ():
        tell(f"  {words}")  # indented, so that no line of a library's message looks like one of ours
    tell(f"ray-ns: {line} (exit code {code})" if _is_log() else f"ray-ns: {line}")


def terminal() -> "Console":
    """Stderr as a terminal that may show a live line. Text printed on it must be ``plain``."""
    from rich.console import Console

    class Terminal(Console):
        def on_broken_pipe(self) -> None:
            """Stop printing; Rich would exit with code 1."""
            self.quiet = True

    return Terminal(file=_notes(), highlight=False, markup=False, emoji=False)


def show_live(progress: "Progress | None") -> None:
    """Show a live line, with all other output above it; None: remove it and restore the terminal."""
    if _Door.live is not None:
        _Door.live.stop()
    _Door.live = progress
    if progress is not None:
        progress.start()


@contextlib.contextmanager
def only_door(for_machines: bool, log: bool = False) -> Iterator[None]:
    """While the block runs, print here what libraries print too, line by line with ``tell``.

    ``for_machines``: print nothing but JSON. ``log``: a long command runs, whose stderr is a log unless on a terminal.
    """
    before = sys.stdout, sys.stderr, warnings.showwarning
    for stream in before[:2]:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # do not fail on a terminal without UTF-8
    for number in range(3):  # a closed descriptor would be reused for the next file opened, and written to
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    _Door.out, _Door.err = (it or open(os.devnull, "w") for it in before[:2])  # noqa: SIM115 - for the whole program
    _Door.for_machines, _Door.log = for_machines, log
    sys.stdout = _Strays(_tell_stray if for_machines else say)
    sys.stderr = _Strays(_tell_stray)
    warnings.showwarning = lambda message, *_, **__: tell(f"warning: {message}", "warning")
    try:
        yield
    finally:
        show_live(None)
        for strays in (sys.stdout, sys.stderr):
            strays.close()
        sys.stdout, sys.stderr, warnings.showwarning = before
        _Door.out, _Door.err, _Door.for_machines, _Door.log = None, None, False, False


class _Strays(io.TextIOBase):
    """Replaces a stream and passes on every line that is written to it."""

    encoding = "utf-8"

    def __init__(self, hand_on: Callable[[str], None]) -> None:
        self._hand_on = hand_on
        self._begun = ""

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            self._hand_on(line)
        return len(text)

    def flush(self) -> None:
        """Nothing to do: an unfinished line waits for its end."""

    def close(self) -> None:
        if self._begun:
            self.write("\n")

    def isatty(self) -> bool:
        return False

    def fileno(self) -> int:
        return 2


def _is_log() -> bool:
    return _Door.log and not _on_terminal()


def _on_terminal() -> bool:
    return _Door.live is not None or _notes().isatty()


def _tell_stray(line: str) -> None:
    tell(line, "log")


def _write(stream: TextIO | None, line: str) -> None:
    """Write a line at once. If the reader closed the pipe, print no more; work goes on and the exit code stays."""
    if stream is None:
        return
    try:
        try:
            stream.write(line + "\n")
            stream.flush()
        except RuntimeError:  # a signal's handler prints while the code that it interrupted does, on this very stream
            os.write(stream.fileno(), f"{line}\n".encode(errors="backslashreplace"))
    except OSError as error:
        nowhere = os.open(os.devnull, os.O_WRONLY)  # or Python would flush again when it exits, and return 120
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        if error.errno != errno.EPIPE and stream is _results():
            raise ResumableError(
                f"stdout: cannot be written ({error.strerror}). Fix that, then run the same command again."
            ) from None


def _results() -> TextIO:
    return _Door.out or sys.stdout


def _notes() -> TextIO:
    return _Door.err or sys.stderr
