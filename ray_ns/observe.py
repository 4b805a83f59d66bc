"""Progress of a run: a live line per stage on a terminal, plain lines in a log, JSON for machines."""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from rich.console import RenderableType
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from ray_ns import printed

LOG_SECONDS = 10.0
FIGURES = ("loss",)  # those that a heartbeat is read for

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


def in_words(found: Mapping[str, Any], figures: Iterable[str] = FIGURES) -> str:
    """A ``Reporter.snapshot`` in words, without the name of its stage. ``figures``: which of its figures to say."""
    words = [f"{found['done']:,} of {found['total']:,} {found['unit']}"]
    if found["seconds_left"] is not None:
        rate = f"{found['img_s']:,.0f} img/s" if "img_s" in found else f"{found['rate']:.3g} a second"
        words += [rate, f"{in_time(found['seconds_left'])} left"]
    words += [f"{name} {found[name]:.4g}" for name in figures if name in found]
    words += [found["note"]] if "note" in found else []
    words += [f"waiting: {found['waiting']}"] if "waiting" in found else []
    return ", ".join(words)


class _Live(Progress):
    """Name, bar and time on one line; below it the progress in words, on as many lines as needed."""

    def get_renderables(self) -> Iterable[RenderableType]:
        for task in self.tasks:
            yield self.make_tasks_table([task])
            yield Text(task.fields["state"])


class Reporter:
    """Prints the progress of a run on stderr; ``snapshot`` returns it for a heartbeat.

    ``mode``: ``auto`` draws a live line on a terminal and writes plain lines with the time (UTC) elsewhere; ``json``
    writes one JSON object a line. Each of ``sinks`` is called with every event, in the thread that it comes from: what
    ``json`` prints, also where it is not printed; it must return at once and raise nothing.
    """

    def __init__(self, mode: Mode = "auto") -> None:
        self.sinks: list[Callable[[Mapping[str, Any]], None]] = []
        self._json = mode == "json"
        self._live: Progress | None = None
        if mode == "auto" and (console := printed.terminal()).is_terminal:
            columns = (TextColumn("{task.description}", markup=False), BarColumn(None), TimeElapsedColumn())
            self._live = _Live(*columns, console=console, transient=True, expand=True)
        self._task: TaskID | None = None
        self._stage = ""
        self._began = self._said = time.monotonic()
        self._waited = -math.inf
        self._anchor: tuple[float, int, float] | None = None
        self._done = self._total = 0
        self._unit = self._note = self._waiting = ""
        self._figures: dict[str, float] = {}

    def begin(self, stage: str, total: int, unit: str, done: int = 0) -> None:
        """A stage begins; an earlier attempt has made ``done`` of ``total`` ``unit``."""
        self._stage, self._unit, self._total = stage, unit, total
        self._done, self._anchor, self._note, self._waiting, self._figures = done, None, "", "", {}
        self._began = self._said = time.monotonic()
        self._say("begin", f"{stage}: {done:,} of {total:,} {unit} done" if done else f"{stage}: begins")
        if self._live is not None:
            printed.show_live(self._live)
            self._task = self._live.add_task(
                printed.plain(stage), total=total or None, completed=done, state=printed.plain(self._state())
            )

    def progress(self, done: int, note: str = "", **figures: float) -> None:
        """``done`` of the stage's total are done; ``note``: a few words to add.

        ``figures``: such as ``loss=1.23``; finite numbers only, others are left out. ``images``: how many there have
        been in this stage, where that is not ``done``; from them comes ``img_s``, their rate over ten seconds and more.
        """
        self._figures = {name: value for name, value in figures.items() if _is_number(value)}
        images = self._figures.pop("images", done if self._unit == "images" else math.nan)
        if self._anchor is None or done < self._done:  # at first, or where a training went on from a checkpoint
            self._anchor = (time.monotonic(), done, images)
        self._waiting = self._waiting if done == self._done else ""
        self._done, self._note = done, note
        since, _, first = self._anchor
        if images > first and time.monotonic() - since >= LOG_SECONDS:  # parts that end together come in bursts
            self._figures["img_s"] = round((images - first) / max(time.monotonic() - since, 1e-6), 1)
        self._show()
        if time.monotonic() - self._said > LOG_SECONDS and not self._waiting:
            self._said = time.monotonic()
            self._say("progress", f"{self._stage}: {self._state()}", show=self._live is None)

    def waiting(self, text: str) -> None:
        """Say what the run waits for (``4 CPUs wanted, 2 there, 120 s``): at once, then every ten seconds at most.

        An empty ``text`` says nothing: the run waits no more.
        """
        self._waiting = text
        self._show()
        if text and time.monotonic() - self._waited > LOG_SECONDS:
            self._waited = time.monotonic()
            place = f"{self._stage}: " if self._stage else ""
            self._say("waiting", f"{place}waiting: {text}", show=self._task is None)

    def end(self, outcome: str) -> None:
        """The stage is committed; ``outcome``: its result in a few words."""
        seconds = time.monotonic() - self._began
        if self._live is not None and self._task is not None:
            self._live.remove_task(self._task)
            printed.show_live(None)
            self._task = None
        self._waiting = ""
        self._say("end", f"{self._stage}: {outcome} ({seconds:.1f} s)", seconds=round(seconds, 3))
        self._stage = ""

    def note(self, text: str) -> None:
        """One line of information."""
        self._say("note", text)

    def warn(self, text: str) -> None:
        """Print a line that the user should know of or act on."""
        self._say("warning", f"warning: {text}")

    def failed(self, text: str, exit_code: int) -> None:
        """Tell the sinks why the run ends; ``printed.tell_failure`` prints it."""
        self._say("error", text, show=False, exit_code=exit_code)

    def snapshot(self) -> Mapping[str, Any]:
        """The stage under way: name, done, total, unit, rate per second, seconds left. Empty between stages.

        And where there are such: the figures, ``img_s`` (images per second) among them, the note, and what it is
        ``waiting`` for. Rates count from the stage's first progress on, or from where a training last went on.
        """
        if not self._stage:
            return {}
        rate = self._rate()
        left = (self._total - self._done) / rate if rate else None
        return {
            **self._figures,
            "stage": self._stage,
            "done": self._done,
            "total": self._total,
            "unit": self._unit,
            "rate": float(f"{rate:.6g}"),
            "seconds_left": round(left, 1) if left is not None else None,
            **({"note": self._note} if self._note else {}),
            **({"waiting": self._waiting} if self._waiting else {}),
        }

    def _rate(self) -> float:
        """Units per second since the stage's first progress; before that, it was starting up."""
        if self._anchor is None:
            return 0.0
        since, first, _ = self._anchor
        return (self._done - first) / max(time.monotonic() - since, 1e-6)

    def _state(self) -> str:
        return in_words(self.snapshot(), [name for name in self._figures if name != "img_s"])

    def _show(self) -> None:
        if self._live is not None and self._task is not None:
            self._live.update(self._task, completed=self._done, state=printed.plain(self._state()))

    def _say(self, kind: str, text: str, show: bool = True, **fields: Any) -> None:
        event = {"time": printed.now(), "event": kind, "text": text, **self.snapshot(), **fields}
        for sink in self.sinks:
            sink(event)
        if show and self._json:
            printed.tell_event(event)
        elif show:
            printed.tell(text, kind, dated=True)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
