"""What the difference of two networks on so many images allows to say: better, worse, or that nobody can tell."""

import math
from dataclasses import dataclass

import numpy as np

from ray_ns.evaluate.intervals import Z, difference
from ray_ns.evaluate.paired import mcnemar, paired

BY_CHANCE = 0.05  # McNemar's exact p, from which on a difference may be chance
# The fewest images that one network alone must have right, and the other none, for McNemar's exact p below that.
FEWEST = 6
# A tenth: the share of images on which a student and its teacher are taken to disagree, before there are any.
DISAGREE = 0.1
WANTED = 2.0  # points: about what a round of self-training gains


def word(low: float, high: float, beyond_chance: bool = True) -> str:
    """``better``, ``worse`` or ``cannot tell``, by the interval of a difference of which more is better.

    ``beyond_chance``: whether the images themselves say so too (``by_images``); without it nobody can tell.
    """
    if not beyond_chance:
        return "cannot tell"
    return "better" if low > 0 else "worse" if high < 0 else "cannot tell"


def by_images(p: float | None, winning: float) -> bool:
    """Whether images tell two networks apart: by McNemar's ``p``; without one, at least ``FEWEST`` are ``winning``.

    ``winning``: on how many images the network in front is. An interval alone leaves 0 out where three images of three
    differ, and p is 0.25 there.
    """
    return winning >= FEWEST if p is None else p < BY_CHANCE


def least(apart: int) -> int:
    """By how many images one network must be in front, where the two differ on ``apart``, for p below 0.05."""
    ahead = max(FEWEST, math.floor(Z * math.sqrt(apart)))
    ahead += (ahead - apart) % 2 if apart >= ahead else 0
    while ahead < apart and mcnemar((apart + ahead) // 2, (apart - ahead) // 2) >= BY_CHANCE:
        ahead += 2
    return ahead


@dataclass(frozen=True)
class Verdict:
    """``points``: top-1 of a network less that of another (-100..100), with the 95 % interval ``low`` to ``high``.

    ``only``: how many images one alone has right, and the other alone; ``p``: McNemar's exact two-sided probability.
    Both are None where the two are not compared image by image.
    """

    images: int
    points: float
    low: float
    high: float
    only: tuple[int, int] | None = None
    p: float | None = None

    @property
    def word(self) -> str:
        """See ``word``: never more than both the interval and the images hold."""
        return word(self.low, self.high, by_images(self.p, round(abs(self.points) * self.images / 100, 3)))

    @property
    def visible(self) -> float:
        """How large a difference must be, in points, to show on these images.

        That is the longer arm of the interval, and no fewer images than McNemar's exact test wants (``least``).
        """
        return max(self.points - self.low, self.high - self.points, 100 * self._least / self.images)

    @property
    def _least(self) -> int:
        return FEWEST if self.only is None else least(sum(self.only))

    @property
    def in_words(self) -> str:
        """``+3.0 points on 100 images (95 %: -2.1 to +8.0): cannot tell, ...``."""
        why = "" if self.word != "cannot tell" else f", less than {self.visible:.1f} points does not show on so few"
        how = "" if self.p is not None else ", as if of different images"
        interval = f"95 %{how}: {self.low:+.1f} to {self.high:+.1f}"
        return f"{self.points:+.1f} points on {self.images:,} images ({interval}): {self.word}{why}"


class ByInterval(Verdict):
    """In a run up to FORMAT 4, whose words follow the interval alone: what it has committed stays what it was."""

    @property
    def word(self) -> str:
        """See ``word``: by the interval."""
        return word(self.low, self.high)

    @property
    def _least(self) -> int:
        return FEWEST


def verdict(first: np.ndarray, second: np.ndarray, exact: bool = True) -> Verdict:
    """Of ``first`` against ``second``, bool (n,): which images each has right, in one order.

    ``exact``: False in what runs up to FORMAT 4 commit (``ByInterval``).
    """
    pair = paired(first, second)
    points = _points(pair.difference, pair.low, pair.high)
    kind = Verdict if exact else ByInterval
    return kind(pair.images, *points, (pair.only_first, pair.only_second), round(pair.p, 6))


def unpaired(first: float, second: float, images: int) -> Verdict:
    """The same of two top-1, 0..1, where it is not known which images are right."""
    return Verdict(images, *_points(first - second, *difference(first, second, images)))


def _points(*shares: float) -> tuple[float, float, float]:
    middle, low, high = (round(100 * it, 6) for it in shares)
    return middle, low, high


def foretold(images: int) -> float:
    """The smallest difference in points that will show on so many images where two networks disagree on a tenth.

    Half the interval, or ``FEWEST`` images. Where they disagree on more it takes more.
    """
    return 100 * min(1.0, max(FEWEST, Z * math.sqrt(DISAGREE * images)) / max(images, 1))


# How many images it takes to see a difference of ``WANTED``.
ENOUGH = math.ceil(DISAGREE * (100 * Z / WANTED) ** 2)


def enough(found: Verdict) -> int:
    """How many images it takes to see ``WANTED`` where two networks disagree as they did, on a tenth at least."""
    apart = 0.0 if found.only is None else sum(found.only) / found.images
    return math.ceil(max(DISAGREE, apart) * (100 * Z / WANTED) ** 2)


def foretold_in_words(images: int, more: str | None = None) -> str:
    """``20 images: a gain under 30.0 points will not show``: said before a run, and true whatever the networks do.

    On more images it also says from when on one shows where they disagree on a tenth. ``more``: what it takes to see
    ``WANTED``.
    """
    never, usual = 100 * min(1.0, FEWEST / max(images, 1)), foretold(images)
    told = f"{images:,} images: a gain under {never:.1f} points will not show"
    if usual > never:
        told += f", nor one under {usual:.1f} where two networks disagree on a tenth of the images"
    return told if images >= ENOUGH or more is None else f"{told}; {more} to see {WANTED:g} points"
