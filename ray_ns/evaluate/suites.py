"""What a network is judged on: the words after ``--on``, and the views of images that each of them asks for.

A **view** is how an image is shown to the network, as one word that a worker understands: ``clean``. A **suite** is a
corpus and the views of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ray_ns.errors import InputError

CLEAN = "clean"
OWN = ("test", "validation")  # the images that a run has of its own
GRAMMAR = "test | validation | FOLDER"


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
    """The suite that a word after ``--on`` names. A folder called ``test`` is ``./test``."""
    if not word:
        raise InputError(f"--on: is empty. Expected {GRAMMAR}.")
    return Suite(word, CLEAN, word, (CLEAN,))


def parse_all(words: Sequence[str]) -> list[Suite]:
    """Those of all words, in order; ``InputError`` where one comes twice."""
    found = [parse(word) for word in words]
    twice = next((it.name for at, it in enumerate(found) if it in found[:at]), None)
    if twice is not None:
        raise InputError(f"--on {twice}: is given twice. Give it once.")
    return found
