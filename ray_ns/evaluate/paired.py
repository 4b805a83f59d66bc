"""Two networks on the same images: by how much one is right more often, and whether that may be chance."""

import math
from dataclasses import dataclass

import numpy as np

from ray_ns.evaluate.intervals import wilson


@dataclass(frozen=True)
class Paired:
    """``difference``: of the shares that are right, first - second (-1..1), with its 95 % interval.

    ``only_first``, ``only_second``: images that one alone has right. ``p``: McNemar's exact two-sided probability.
    """

    images: int
    only_first: int
    only_second: int
    difference: float
    low: float
    high: float
    p: float


def paired(first: np.ndarray, second: np.ndarray) -> Paired:
    """The comparison of two bool arrays: which images each has right, in one order.

    The interval is Newcombe's for paired proportions (1998, Statistics in Medicine 17, 2635-2650, method 10).
    """
    images = len(first)
    if images == 0 or len(second) != images:
        raise ValueError(f"{images} and {len(second)} images cannot be paired")
    both, neither = int((first & second).sum()), int((~first & ~second).sum())
    one, other = int((first & ~second).sum()), int((second & ~first).sum())
    share, share_other = (both + one) / images, (both + other) / images
    (low, high), (low_other, high_other) = wilson(share, images), wilson(share_other, images)
    phi = _phi(both, one, other, neither)
    down, up = share - low, high_other - share_other
    down_other, up_other = share_other - low_other, high - share
    difference = (one - other) / images
    below = math.sqrt(max(down**2 - 2 * phi * down * up + up**2, 0))
    above = math.sqrt(max(down_other**2 - 2 * phi * down_other * up_other + up_other**2, 0))
    return Paired(images, one, other, difference, difference - below, difference + above, mcnemar(one, other))


def mcnemar(one: int, other: int) -> float:
    """The exact two-sided probability of a split as uneven as ``one`` to ``other``, were both equally likely."""
    many, term, total = one + other, 1, 0
    for number in range(min(one, other) + 1):
        total += term
        term = term * (many - number) // (number + 1)
    return min(1.0, 2 * total / 2**many)


def _phi(both: int, one: int, other: int, neither: int) -> float:
    """The correlation of being right, drawn towards 0 by half the images where it is positive."""
    margins = (both + one) * (other + neither) * (both + other) * (one + neither)
    product = both * neither - one * other
    if product > 0:
        product_less = max(product - (both + one + other + neither) / 2, 0.0)
        return product_less / math.sqrt(margins)
    return product / math.sqrt(margins) if margins else 0.0
