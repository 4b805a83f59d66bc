"""What a network is judged on: the words after ``--on``, and the views of images that each of them asks for.

A **view** is how an image is shown to the network, as one word that a worker understands: ``clean``, ``fgsm:0.03``,
``corrupt:cifar-1:fog:5``, ``perturb:cifar-1:tilt``.
A **suite** is a corpus and the views of it; or a corpus per view, where images are published in every view.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ray_ns.errors import InputError
from ray_ns.evaluate import corruptions, perturbations
from ray_ns.evaluate.attacks import Attack

CLEAN, AMONG, REAL, FGSM, PGD = "clean", "among", "real", "fgsm", "pgd"
CORRUPTIONS, PERTURBATIONS, ROBUSTNESS = "corruptions", "perturbations", "robustness"
PUBLISHED = "imagenet-c"  # its images as they are published (``evaluate.published``)
OWN = ("test", "validation")  # the images that a run has of its own
STEPS = 10
_CORRUPT, _PERTURB = "corrupt", "perturb"
GRAMMAR = (
    "test | validation | FOLDER | fgsm:EPS | pgd:EPS[:STEPS] | among | real:FILE | corruptions | perturbations | "
    "robustness, the last seven with @FOLDER for other images | imagenet-c@FOLDER"
)
ALL = (CORRUPTIONS, PERTURBATIONS, f"{FGSM}:8/255", f"{PGD}:8/255")  # of ``robustness``, beside the clean images


@dataclass(frozen=True)
class Suite:
    """``name``: what it is called. ``kind``: which figures it gives. ``source``: images of ``OWN``, or a folder.

    ``file``: the labels of ``REAL``. ``folders``: of ``PUBLISHED`` where the images of each view lie.
    """

    name: str
    kind: str
    source: str
    views: tuple[str, ...]
    file: str = ""
    folders: tuple[str, ...] = ()

    @property
    def sources(self) -> tuple[str, ...]:
        """Where its images come from: one place, or one for each view."""
        return self.folders or (self.source,)

    @property
    def own(self) -> bool:
        """Whether its images are the run's own."""
        return self.source in OWN


def parse(word: str, size: int, channels: int) -> list[Suite]:
    """The suites that a word after ``--on`` names. A folder that is called like a suite is given as ``./test``.

    ``size``, ``channels``: of the images that the network sees, by which corruptions are chosen.
    """
    if not word:
        raise InputError(f"--on: is empty. Expected {GRAMMAR}.")
    said, at, source = word.partition("@")
    kind, *values = said.split(":")
    if kind not in {FGSM, PGD, AMONG, REAL, CORRUPTIONS, PERTURBATIONS, ROBUSTNESS, PUBLISHED}:
        return [Suite(word, CLEAN, word, (CLEAN,))]
    if kind == PUBLISHED:
        if values or not source:
            raise InputError(
                f"--on {word}: says not where ImageNet-C lies. Expected {PUBLISHED}@FOLDER; images of your own in a "
                f"folder of that name are ./{PUBLISHED}."
            )
        return [Suite(word, kind, source, ())]  # the views are what lies there
    if at and not source:
        raise InputError(f"--on {word}: no folder follows the @. Expected {said}@FOLDER, or {said}.")
    source = source or OWN[0]
    if kind in {FGSM, PGD}:
        return [Suite(word, kind, source, (_attack(word, kind, values),))]
    if kind == REAL:
        file = said.partition(":")[2]
        if not file:
            raise InputError(f"--on {word}: no file is named. Expected real:real.json@FOLDER.")
        return [Suite(word, kind, source, (CLEAN,), file)]
    if values:
        raise InputError(f"--on {word}: {kind} takes no value. Expected {kind} or {kind}@FOLDER.")
    if kind == AMONG:
        return [Suite(word, kind, source, (AMONG,))]
    if kind == CORRUPTIONS:
        return [Suite(word, kind, source, _corruptions(size, channels))]
    if kind == PERTURBATIONS:
        of = perturbations.variant(size)
        return [Suite(word, kind, source, tuple(f"{_PERTURB}:{of}:{name}" for name in perturbations.TABLE))]
    parts = [parse(f"{it}@{source}", size, channels) for it in ALL]
    return [Suite(source, CLEAN, source, (CLEAN,)), *(it for part in parts for it in part)]


def parse_all(words: Sequence[str], size: int, channels: int) -> list[Suite]:
    """Those of all words, in order; ``InputError`` where one comes twice."""
    found = [it for word in words for it in parse(word, size, channels)]
    asked = [(it.source, it.kind, it.views, it.file) for it in found]
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


def among(suite: Suite, classes: np.ndarray) -> Suite:
    """The ``AMONG`` suite of a corpus that has only ``classes``, bool (all of the network's,). Of two or more."""
    if classes.sum() < 2:
        raise InputError(
            f"--on {suite.name}: its images are all of one class, and a network that may say no other is always right. "
            f"Give images of two classes or more, or {suite.source} without {AMONG}."
        )
    return replace(suite, views=(f"{AMONG}:{np.packbits(classes).tobytes().hex()}",))


def among_of(view: str, classes: int) -> np.ndarray | None:
    """The classes that a view lets the network choose among, bool (classes,); None where it is no such view."""
    kind, _, bits = view.partition(":")
    if kind != AMONG:
        return None
    return np.unpackbits(np.frombuffer(bytes.fromhex(bits), np.uint8), count=classes).astype(bool)


def corruption_of(view: str) -> tuple[str, str, int] | None:
    """The variant, the corruption and the severity that a view is; None where it is none."""
    kind, *values = view.split(":")
    return (values[0], values[1], int(values[2])) if kind == _CORRUPT else None


def corruption(of: str, name: str, severity: int) -> str:
    """The view of a corruption, of the variant ``of``."""
    return f"{_CORRUPT}:{of}:{name}:{severity}"


def perturbation_of(view: str) -> tuple[str, str] | None:
    """The variant and the perturbation that a view is; None where it is none."""
    kind, *values = view.split(":")
    return (values[0], values[1]) if kind == _PERTURB else None


def _corruptions(size: int, channels: int) -> tuple[str, ...]:
    of = corruptions.variant(size)
    names = corruptions.names(size, channels)
    return tuple(corruption(of, name, it) for name in names for it in corruptions.SEVERITIES)


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
