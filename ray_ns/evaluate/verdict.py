"""What the difference of two networks on so many images allows to say: better, worse, or that nobody can tell."""

import math
from dataclasses import dataclass

import numpy as np

from ray_ns.evaluate.intervals import Z, difference
from ray_ns.evaluate.paired import paired

# The fewest images that one network alone must have right, and the other none, for McNemar's exact p below 0.05.
FEWEST = 6
# A tenth: the share of images on which a student and its teacher are taken to disagree, before there are any.
DISAGREE = 0.1
WANTED = 2.0  # points: about what a round of self-training gains


def word(low: float, high: float) -> str:
    """``better``, ``worse`` or ``cannot tell``, by the interval of a difference of which more is better."""
    return "better" if low > 0 else "worse" if high < 0 else "cannot tell"


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
        """See ``word``: never more than the interval holds."""
        return word(self.low, self.high)

    @property
    def visible(self) -> float:
        """How large a difference must be, in points, to show on these images: the longer arm of the interval."""
        return max(self.points - self.low, self.high - self.points, 100 * FEWEST / self.images)

    @property
    def in_words(self) -> str:
        """``+3.0 points on 100 images (95 %: -2.1 to +8.0): cannot tell, ...``."""
        why = "" if self.word != "cannot tell" else f", less than {self.visible:.1f} points does not show on so few"
        how = "" if self.p is not None else ", as if of different images"
        interval = f"95 %{how}: {self.low:+.1f} to {self.high:+.1f}"
        return f"{self.points:+.1f} points on {self.images:,} images ({interval}): {self.word}{why}"


def verdict(first: np.ndarray, second: np.ndarray) -> Verdict:
    """Of ``first`` against ``second``, bool (n,): which images each has right, in one order."""
    pair = paired(first, second)
    points = _points(pair.difference, pair.low, pair.high)
    return Verdict(pair.images, *points, (pair.only_first, pair.only_second), round(pair.p, 6))


def unpaired(first: float, second: float, images: int) -> Verdict:
    """The same of two top-1, 0..1, where it is not known which images are right."""
    return Verdict(images, *_points(first - second, *difference(first, second, images)))


def _points(*shares: float) -> tuple[float, float, float]:
    middle, low, high = (round(100 * it, 6) for it in shares)
    return middle, low, high


def foretold(images: int) -> float:
    """The smallest difference in points that will show on so many images: half the interval, or ``FEWEST`` images."""
    return 100 * min(1.0, max(FEWEST, Z * math.sqrt(DISAGREE * images)) / max(images, 1))


# How many images it takes to see a difference of ``WANTED``.
ENOUGH = math.ceil(DISAGREE * (100 * Z / WANTED) ** 2)


def foretold_in_words(images: int) -> str:
    """``20 images: a gain under 30 points will not show; sort 941 more to see 2 points``: said before a run."""
    told = f"{images:,} images: a gain under {foretold(images):.1f} points will not show"
    return told if images >= ENOUGH else f"{told}; sort {ENOUGH - images:,} more to see {WANTED:g} points"
