"""What a method gives: its rounds, the best of them, the control; and the report that is made of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from ray_ns.config import Method, Training
from ray_ns.config.run import Promote
from ray_ns.evaluate.promotion import Decision, Scored, decisions

CONTROL = "control"
CORPORA = ("validation", "test")
ONE_STUDENT: frozenset[Method] = frozenset(("pseudo_label", "uda", "meta_pseudo_labels"))  # ``methods.one_round``


class Network(Protocol):
    """A trained network, as far as a method and its report know it."""

    @property
    def digest(self) -> str: ...
    @property
    def parameters(self) -> int: ...
    @property
    def model(self) -> str: ...
    @property
    def folder(self) -> str: ...
    @property
    def weights_sha256(self) -> str: ...


class Labels(Protocol):
    """A pool's labels by one teacher. A method only hands them on."""

    @property
    def digest(self) -> str: ...


class Selection(Protocol):
    """The labels that are confident enough, balanced by class."""

    @property
    def images(self) -> int: ...
    @property
    def copies(self) -> int: ...
    @property
    def left_out(self) -> Mapping[str, int]: ...


class Scores(Scored, Protocol):
    """How a network scored."""

    @property
    def digest(self) -> str: ...
    def top5(self, corpus: str) -> float | None: ...


def is_control(name: str) -> bool:
    """Whether the turn at that folder of a run is a control's: ``control``, ``rounds-3/control``, ``control-uda``."""
    return name.rpartition("/")[2].partition("-")[0] == CONTROL


OTHER_CONTROLS = {
    "control-no-feedback": "control: no feedback",
    "control-uda": "control: UDA alone",
    "control-pseudo-label": "control: plain pseudo labels",
}


def title(name: str) -> str:
    """What a table calls the turn at that folder of a run."""
    turn = name.rpartition("/")[2]
    if is_control(name):
        return OTHER_CONTROLS.get(turn, "control: labels only")
    return "0: teacher" if turn == "0" else f"{turn}: student"


def nearest(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Of the rows of a report the student that is the best network or, where the teacher stayed, the nearest to it.

    That is the one with the highest top-1 on the validation images, the earlier of equals. None without students.
    """
    students = [row for row in rows[1:] if not is_control(row["round"])]
    best = next((row for row in students if row["best"]), None)
    return best or max(students, key=lambda row: row["validation_top1"] or 0.0, default=None)


@dataclass(frozen=True)
class Round:
    """A network that was trained: its recipe, its scores, and the selection it learned from, where there was one.

    ``name`` is its folder in the run: ``rounds/0`` is the teacher's, ``control`` the control's. ``recipe``: None: it
    was given. ``fixed``: what FixRes did to it (``evaluate.fixed.outcome``), where its recipe has that.
    """

    name: str
    recipe: Training | None
    network: Network
    scores: Scores
    selection: Selection | None = None
    fixed: Mapping[str, Any] | None = None

    @property
    def test(self) -> float | None:
        """Top-1 on the test images, 0..1: reported, and chooses nothing. None where there are none."""
        return self.scores.top1("test")


@dataclass(frozen=True)
class Outcome:
    """All rounds in order, and the controls, the fair one first. ``promote``: how a student became the teacher.

    ``complete`` is False where ``--until`` ended the run early. ``exact``: see ``evaluate.promotion.decide``.
    ``beside``: the student that the controls are compared with, whether or not it became the teacher; None: the best.
    """

    rounds: Sequence[Round]
    promote: Promote
    controls: Sequence[Round] = ()
    complete: bool = True
    exact: bool = True
    beside: Round | None = None

    @cached_property
    def _decided(self) -> tuple[list[Decision], int]:
        return decisions(self.promote, [it.scores for it in self.rounds], self.exact)

    @property
    def best(self) -> Round:
        """The teacher at the end, by the validation images alone; the control is never chosen."""
        return self.rounds[self._decided[1]]

    @property
    def decided(self) -> Sequence[Decision]:
        """Of each student whether it became the teacher, and why."""
        return self._decided[0]

    @property
    def all(self) -> list[Round]:
        """The rounds, then the controls."""
        return [*self.rounds, *self.controls]

    @property
    def why(self) -> str | None:
        """Why that network is the best, as a sentence; None where students are chosen by top-1 alone."""
        if self.promote == "validation" or not self.decided:
            return None
        at = self._decided[1]
        if at == 0:
            return "the teacher is kept: every student was worse on the validation images"
        return f"student {at} {self.decided[at - 1].told}"

    def as_json(self) -> dict[str, Any]:
        """The report: a row per round, the best, and gains on test in points: the best's, over a control ``beside``'s.

        Where students are not simply chosen by top-1: the rule, and of each student what was decided.
        """
        gains = {"over_teacher": _points(self.best, self.rounds[0])}
        for it in self.controls:
            gains[f"over_{it.name.rpartition('/')[2].replace('-', '_')}"] = _points(self.beside or self.best, it)
        rows = [_row(it, it is self.best) for it in self.all]
        rule: dict[str, Any] = {}
        if self.promote != "validation":
            rule = {"promote": self.promote, "why": self.why}
            for row, decided in zip(rows[1:], self.decided, strict=False):
                row |= decided.as_json()
        return rule | {
            "rounds": rows,
            "best": self.best.name,
            "best_model": self.best.network.folder,
            "best_weights_sha256": self.best.network.weights_sha256,
            "gain_points": gains,
        }


def _row(it: Round, is_best: bool) -> dict[str, Any]:
    kept, copies = (it.selection.images, it.selection.copies) if it.selection else (0, 0)
    return {
        "round": it.name,
        "model": it.recipe.model.name if it.recipe else it.network.model,
        **({} if it.recipe else {"given": True}),
        "parameters": it.network.parameters,
        "kept": kept,
        "duplicates": copies - kept,
        **_scores(it.scores),
        "best": is_best,
        **({"fixres": it.fixed} if it.fixed else {}),
    }


def _scores(it: Scores) -> dict[str, float | None]:
    top5 = {f"{name}_top5": it.top5(name) for name in CORPORA}
    return {f"{name}_top1": it.top1(name) for name in CORPORA} | {
        name: value for name, value in top5.items() if value is not None
    }


def _points(one: Round, other: Round) -> float | None:
    return None if one.test is None or other.test is None else round(100 * (one.test - other.test), 6)
