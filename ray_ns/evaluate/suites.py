"""What a network is judged on: the words after ``--on``, and the views of images that each of them asks for.

A **view** is how an image is shown to the network, as one word that a worker understands: ``clean``, ``fgsm:0.03``.
A **suite** is a corpus and the views of it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ray_ns.errors import InputError
from ray_ns.evaluate.attacks import Attack

CLEAN, FGSM, PGD = "clean", "fgsm", "pgd"
OWN = ("test", "validation")  # the images that a run has of its own
STEPS = 10
GRAMMAR = "test | validation | FOLDER | fgsm:EPS | pgd:EPS[:STEPS], the last ones with @FOLDER for other images"


@dataclass(frozen=True)
class Suite:
    """``name``: what it is called. ``kind``: which figures it gives. ``source``: images of ``OWN``, or a folder."""

    name: str
    kind: str
    source: str
    views: tuple[str, ...]

    @property
    def own(self) -> bool:
        """Whether its images are the run's own."""
        return self.source in OWN


def parse(word: str) -> Suite:
    """The suite that a word after ``--on`` names. A folder that is called like a suite is given as ``./test``."""
    if not word:
        raise InputError(f"--on: is empty. Expected {GRAMMAR}.")
    said, at, source = word.partition("@")
    kind, *values = said.split(":")
    if kind in {FGSM, PGD}:
        if at and not source:
            raise InputError(f"--on {word}: no folder follows the @. Expected {said}@FOLDER, or {said}.")
        return Suite(word, kind, source or OWN[0], (_attack(word, kind, values),))
    return Suite(word, CLEAN, word, (CLEAN,))


def parse_all(words: Sequence[str]) -> list[Suite]:
    """Those of all words, in order; ``InputError`` where one comes twice."""
    found = [parse(word) for word in words]
    asked = [(it.source, it.views) for it in found]
    twice = next((it.name for at, it in enumerate(found) if asked[at] in asked[:at]), None)
    if twice is not None:
        raise InputError(f"--on {twice}: is given twice. Give it once.")
    return found


def attack_of(view: str) -> Attack | None:
    """The attack that a view is; None where it is none."""
    kind, *values = view.split(":")
    if kind == FGSM:
        return Attack(float(values[0]))
    return Attack(float(values[0]), int(values[1]), float(values[2])) if kind == PGD else None


def _attack(word: str, kind: str, values: Sequence[str]) -> str:
    """The view of an attack: ``fgsm:EPSILON``, or ``pgd:EPSILON:STEPS:STEP`` whose steps reach 2.5 times as far."""
    expected = "fgsm:EPS" if kind == FGSM else "pgd:EPS or pgd:EPS:STEPS"
    try:
        if len(values) not in ({1} if kind == FGSM else {1, 2}):
            raise ValueError(f"{len(values)} values")
        epsilon, steps = _share(values[0]), int(values[1]) if len(values) == 2 else STEPS
        if not 0 < epsilon <= 1 or not 1 <= steps <= 1000:
            raise ValueError("out of range")
    except ValueError as error:
        raise InputError(
            f"--on {word}: {error}. Expected {expected}; EPS is how far a pixel may go, above 0 and up to 1, or such "
            f"as 8/255; STEPS is 1 to 1000."
        ) from None
    return f"{kind}:{epsilon:.6g}" if kind == FGSM else f"{kind}:{epsilon:.6g}:{steps}:{2.5 * epsilon / steps:.6g}"


def _share(text: str) -> float:
    """``0.03`` or ``8/255``."""
    above, slash, below = text.partition("/")
    found = float(above) / (float(below) if slash and float(below) else 1.0)
    if not math.isfinite(found):
        raise ValueError(f"{text} is no number")
    return found
