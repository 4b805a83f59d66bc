"""Whether a student becomes the teacher: its answers on the validation images beside those of its teacher."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ray_ns.config.run import Promote
from ray_ns.evaluate.verdict import Verdict, verdict, word

BETTER, WORSE, CANNOT_TELL = "better", "worse", "cannot tell"
MISTAKES = 20  # images that one of two networks has wrong, of fewer nothing is said of the loss
SAMPLES, TAIL = 999, 25  # drawn for the interval, and how many of them lie beyond each end: 2.5 %


# What a network says of images, in their order. Which are right, bool (n,), an unreadable one is wrong; and -ln of the
# true class's probability, float (n,), NaN where an image is unreadable. None where the run has not kept it.
Answers = tuple[np.ndarray, np.ndarray | None]


class Scored(Protocol):
    """How a network scored, as far as a promotion asks."""

    def top1(self, corpus: str) -> float | None:
        """Share of right answers, 0..1; None where ``corpus`` has no images."""

    def answers(self, corpus: str) -> Answers | None:
        """What it said of each image of ``corpus``; None where there is none, or the run has not kept it."""


@dataclass(frozen=True)
class LossVerdict:
    """The log-loss of a network less that of another on the same images, in nats, with its 95 % interval."""

    images: int
    difference: float
    low: float
    high: float

    @property
    def word(self) -> str:
        """``better``, ``worse`` or ``cannot tell``; less is better."""
        return word(-self.high, -self.low)

    @property
    def in_words(self) -> str:
        """``log-loss -0.120 (95 %: -0.210 to -0.030): better``."""
        return f"log-loss {self.difference:+.3f} (95 %: {self.low:+.3f} to {self.high:+.3f}): {self.word}"


def loss_verdict(first: Answers, second: Answers) -> LossVerdict | None:
    """Of ``first`` against ``second``, the answers of two networks on the same images.

    The interval is the bootstrap-t of the images' differences (Efron 1981; Hall 1988, Annals of Statistics 16,
    927-953), because losses are skewed: of a network that is sure of itself they are next to nothing on most images and
    large on the few that it has wrong. Student's interval would call the less sure one worse in up to 60 % of cases
    without cause. None where too few images tell of that tail (``MISTAKES``), or a run has kept no losses.
    """
    (right, losses), (right_before, losses_before) = first, second
    if losses is None or losses_before is None:
        return None
    read = np.isfinite(losses) & np.isfinite(losses_before)
    if (read & ~(right & right_before)).sum() < MISTAKES:
        return None
    differences = (losses - losses_before)[read].astype(np.float64)
    middle, error = _mean(differences)
    rng, found = np.random.default_rng(0), []
    for _ in range(SAMPLES):
        mean, scale = _mean(differences[rng.integers(0, len(differences), len(differences))])
        found.append((mean - middle) / scale if scale else math.copysign(math.inf, mean - middle))
    found.sort()
    ends = middle, middle - found[SAMPLES - TAIL] * error, middle - found[TAIL - 1] * error
    return LossVerdict(len(differences), *(round(it, 6) for it in ends)) if all(map(math.isfinite, ends)) else None


def _mean(values: np.ndarray) -> tuple[float, float]:
    """The mean and its standard error."""
    return float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values))


@dataclass(frozen=True)
class Decision:
    """Whether the student becomes the teacher. ``top1``, ``loss``: the evidence, where there is such.

    ``told``: why, in words, after the name of the student.
    """

    promoted: bool
    told: str
    top1: Verdict | None = None
    loss: LossVerdict | None = None

    def as_json(self) -> dict[str, Any]:
        """``promoted``, ``why``, and the evidence as JSON values."""
        found: dict[str, Any] = {"promoted": self.promoted, "why": self.told}
        for name, it in (("top1", self.top1), ("log_loss", self.loss)):
            found |= {name: vars(it) | {"verdict": it.word}} if it is not None else {}
        return found


def decide(rule: Promote, student: Scored, teacher: Scored, exact: bool = True) -> Decision:
    """By ``rule``, on the validation images.

    ``auto``: promoted, unless the paired top-1 says worse, or leaves it open and the paired log-loss says worse.
    ``always``: promoted. ``validation``: promoted with a higher top-1; a tie is none. ``exact``: False in runs up to
    FORMAT 4 (``evaluate.verdict.ByInterval``), which go on as they decided.
    """
    if rule == "validation":
        return _by_top1(student.top1("validation"), teacher.top1("validation"))
    if rule == "always":
        return Decision(True, "becomes the teacher, as run.promote: always has it")
    said, before = student.answers("validation"), teacher.answers("validation")
    if said is None or before is None:
        return Decision(True, "becomes the teacher: there are no answers on validation images that could speak against")
    top1 = verdict(said[0], before[0], exact)
    loss = loss_verdict(said, before) if top1.word == CANNOT_TELL else None
    decides = top1.word if loss is None else loss.word
    evidence = f"on validation {top1.in_words}" + (f"; {loss.in_words}" if loss else "")
    if decides == WORSE:
        return Decision(False, f"is worse than its teacher, which stays: {evidence}", top1, loss)
    why = "is better" if decides == BETTER else "is not shown to be worse"
    return Decision(True, f"{why} than its teacher, and takes its place: {evidence}", top1, loss)


def _by_top1(student: float | None, teacher: float | None) -> Decision:
    if student is None or teacher is None:
        raise ValueError("run.promote: validation needs validation images")
    promoted = student > teacher
    compared = f"{100 * student:.1f} % of the validation images right, its teacher {100 * teacher:.1f} %"
    return Decision(promoted, f"{'becomes the teacher' if promoted else 'is no better than its teacher'}: {compared}")


def decisions(rule: Promote, networks: Sequence[Scored], exact: bool = True) -> tuple[list[Decision], int]:
    """What is decided of each network after the first, and which one is the teacher at the end (0: the first)."""
    found: list[Decision] = []
    at = 0
    for number in range(1, len(networks)):
        found.append(decide(rule, networks[number], networks[at], exact))
        at = number if found[-1].promoted else at
    return found, at
