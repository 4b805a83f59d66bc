"""Progress of a run: a live line per stage on a terminal, plain lines in a log, JSON for machines."""

import time
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from rich.console import RenderableType
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from ray_ns import printed

LOG_SECONDS = 10.0

Mode = Literal["auto", "plain", "json"]


def in_time(seconds: float) -> str:
    """A duration in words: ``46 s``, ``12 min``, ``3 h 20 min``, ``2 d 4 h``."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


class _Live(Progress):
    """Name, bar and time on one line; below it the progress in words, on as many lines as needed."""

    def get_renderables(self) -> Iterable[RenderableType]:
        for task in self.tasks:
            yield self.make_tasks_table([task])
            yield Text(task.fields["state"])


class Reporter:
    """Prints the progress of a run on stderr; ``snapshot`` returns it for a heartbeat.

    ``mode``: ``auto`` draws a live line on a terminal and writes plain lines elsewhere; ``json`` writes one JSON
    object a line.
    """

    def __init__(self, mode: Mode = "auto") -> None:
        self._json = mode == "json"
        self._live: Progress | None = None
        if mode == "auto" and (console := printed.terminal()).is_terminal:
            columns = (TextColumn("{task.description}", markup=False), BarColumn(None), TimeElapsedColumn())
            self._live = _Live(*columns, console=console, transient=True, expand=True)
        self._task: TaskID | None = None
        self._stage = ""
        self._began = self._said = time.monotonic()
        self._anchor: tuple[float, int] | None = None
        self._done = self._total = 0
        self._unit = self._note = ""

    def begin(self, stage: str, total: int, unit: str, done: int = 0) -> None:
        """A stage begins; an earlier attempt has made ``done`` of ``total`` ``unit``."""
        self._stage, self._unit, self._total = stage, unit, total
        self._done, self._anchor, self._note = done, None, ""
        self._began = self._said = time.monotonic()
        self._say("begin", f"{stage}: {done:,} of {total:,} {unit} done" if done else f"{stage}: begins")
        if self._live is not None:
            printed.show_live(self._live)
            self._task = self._live.add_task(
                printed.plain(stage), total=total or None, completed=done, state=printed.plain(self._state())
            )

    def progress(self, done: int, note: str = "") -> None:
        """``done`` of the stage's total are done; ``note``: a few words to add."""
        if self._anchor is None:
            self._anchor = (time.monotonic(), done)
        self._done, self._note = done, note
        if self._live is not None and self._task is not None:
            self._live.update(self._task, completed=done, state=printed.plain(self._state()))
        elif time.monotonic() - self._said > LOG_SECONDS:
            self._said = time.monotonic()
            self._say("progress", f"{self._stage}: {self._state()}")

    def end(self, outcome: str) -> None:
        """The stage is committed; ``outcome``: its result in a few words."""
        seconds = time.monotonic() - self._began
        if self._live is not None and self._task is not None:
            self._live.remove_task(self._task)
            printed.show_live(None)
            self._task = None
        self._say("end", f"{self._stage}: {outcome} ({seconds:.1f} s)", seconds=round(seconds, 3))
        self._stage = ""

    def note(self, text: str) -> None:
        """One line of information."""
        self._say("note", text)

    def warn(self, text: str) -> None:
        """Print a line that the user should know of or act on."""
        self._say("warning", f"warning: {text}")

    def snapshot(self) -> Mapping[str, Any]:
        """The stage under way: name, done, total, unit, rate per second, seconds left, note. Empty between stages."""
        if not self._stage:
            return {}
        rate = self._rate()
        left = (self._total - self._done) / rate if rate else None
        return {
            "stage": self._stage,
            "done": self._done,
            "total": self._total,
            "unit": self._unit,
            "rate": round(rate, 3),
            "seconds_left": round(left, 1) if left is not None else None,
            **({"note": self._note} if self._note else {}),
        }

    def _rate(self) -> float:
        """Units per second since the stage's first progress; before that, it was starting up."""
        if self._anchor is None:
            return 0.0
        since, first = self._anchor
        return (self._done - first) / max(time.monotonic() - since, 1e-6)

    def _state(self) -> str:
        rate = self._rate()
        left = f", {rate:.3g} a second, {in_time((self._total - self._done) / rate)} left" if rate else ""
        return f"{self._done:,} of {self._total:,} {self._unit}{left}" + (f", {self._note}" if self._note else "")

    def _say(self, kind: str, text: str, **fields: Any) -> None:
        if self._json:
            printed.tell_event({"event": kind, "text": text, **self.snapshot(), **fields})
        else:
            printed.tell(text, kind)
