"""What a method gives: its rounds, the best of them, the control; and the report that is made of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ray_ns.config import Training

CONTROL = "control"


class Network(Protocol):
    """A trained network, as far as a method and its report know it."""

    @property
    def digest(self) -> str: ...
    @property
    def parameters(self) -> int: ...
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


class Scores(Protocol):
    """How a network scored."""

    @property
    def digest(self) -> str: ...
    def top1(self, corpus: str) -> float: ...


def is_control(name: str) -> bool:
    """Whether the turn at that folder of a run is the control's: ``control``, or ``rounds-3/control``."""
    return name.rpartition("/")[2] == CONTROL


@dataclass(frozen=True)
class Round:
    """A network that was trained: its recipe, its scores, and the selection it learned from, where there was one.

    ``name`` is its folder in the run: ``rounds/0`` is the teacher's, ``control`` the control's.
    """

    name: str
    recipe: Training
    network: Network
    scores: Scores
    selection: Selection | None = None

    @property
    def validation(self) -> float:
        """Top-1 on the validation images, 0..1: what chooses the best round."""
        return self.scores.top1("validation")

    @property
    def test(self) -> float:
        """Top-1 on the test images, 0..1: reported, and chooses nothing."""
        return self.scores.top1("test")


def best(rounds: Sequence[Round]) -> Round:
    """The round with the highest top-1 on the validation images; the earlier of two equals."""
    return max(rounds, key=lambda it: it.validation)


@dataclass(frozen=True)
class Outcome:
    """All rounds in order, and the control. ``complete`` is False where ``--until`` ended the run early."""

    rounds: Sequence[Round]
    control: Round | None = None
    complete: bool = True

    @property
    def best(self) -> Round:
        """The best of the rounds by validation; the control is never chosen."""
        return best(self.rounds)

    @property
    def all(self) -> list[Round]:
        """The rounds, then the control."""
        return [*self.rounds, *([self.control] if self.control else [])]

    def as_json(self) -> dict[str, Any]:
        """The report: a row per round, the best by validation, and its gains on test in points."""
        gains = {"over_teacher": _points(self.best, self.rounds[0])}
        if self.control is not None:
            gains["over_control"] = _points(self.best, self.control)
        return {
            "rounds": [_row(it, it is self.best) for it in self.all],
            "best": self.best.name,
            "best_model": self.best.network.folder,
            "best_weights_sha256": self.best.network.weights_sha256,
            "gain_points": gains,
        }


def _row(it: Round, is_best: bool) -> dict[str, Any]:
    kept, copies = (it.selection.images, it.selection.copies) if it.selection else (0, 0)
    return {
        "round": it.name,
        "model": it.recipe.model.name,
        "parameters": it.network.parameters,
        "kept": kept,
        "duplicates": copies - kept,
        "validation_top1": it.validation,
        "test_top1": it.test,
        "best": is_best,
    }


def _points(one: Round, other: Round) -> float:
    return round(100 * (one.test - other.test), 6)
