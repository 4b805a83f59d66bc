"""Confidence bins: how fine the histograms of labels are, and which confidence ends which bin.

Bin 0 holds the highest confidences. Rule ``official`` has steps of 0.01. Rule ``paper`` has the same steps, and within
them 32 bins to every octave of the distance from 1: however near to 1 the ``K`` most confident labels of a full class
are, they end in a narrow bin. A threshold between two steps ends a bin too.
"""

from functools import cache

import numpy as np

from ray_ns.labels.selection.terms import GRID, Terms

ONE = 0x3F800000  # the bits of 1.0: 0..ONE are the float32 of 0..1, in order
SHIFT = 18  # 32 bins to an octave
FIRST = (ONE >> SHIFT) - 1
OVER_100 = np.nextafter(np.float32(100), np.float32(101))
BINS = {"paper": ((127 + 30) << (23 - SHIFT)) - FIRST + len(GRID) + 1, "official": len(GRID)}  # per class
UNREACHED = np.float32(2)  # above every confidence


def bins_of(labels: np.ndarray, confidence: np.ndarray, asked: Terms) -> np.ndarray:
    """The bin of each label, int32 (n,): labels int64, confidence float32. Never rises with the confidence."""
    if asked.rule == "official":
        return steps_above(confidence)
    bins = without_thresholds(confidence)
    if not asked.on_grid:
        bins += asked.below(labels, confidence)
    return bins


def steps_above(confidence: np.ndarray) -> np.ndarray:
    """How many steps of the grid lie above each confidence, int32."""
    step = (confidence * OVER_100).astype(np.int32)  # never too few, and one too many just below a step
    step -= GRID[step] > confidence
    return 100 - step


def without_thresholds(confidence: np.ndarray) -> np.ndarray:
    """The bins of the rule ``paper`` but for thresholds, int32: a bin ends where its octave's or the grid's ends.

    The distance from 1 is exact as an integer, since the bits of float32 are in order.
    """
    distance = ONE - confidence.view(np.int32)
    bins = distance.astype(np.float32).view(np.int32)
    bins >>= SHIFT
    bins -= FIRST
    np.maximum(bins, 0, out=bins)
    bins += steps_above(confidence)
    return bins


@cache
def floors() -> np.ndarray:
    """The lowest confidence, float32, of each bin of the rule ``paper``; an empty bin has that of the bin before it.

    Found by bisection.
    """
    bins = np.arange(BINS["paper"])
    low, high = np.zeros(len(bins), np.int32), np.full(len(bins), ONE, np.int32)
    while (low < high).any():
        middle = (low + high) // 2
        within = without_thresholds(middle.view(np.float32)) <= bins
        low, high = np.where(within, low, middle + 1), np.where(within, middle, high)
    return high.astype(np.int32).view(np.float32)


def lowest_of(bins: np.ndarray, rule: str) -> np.ndarray:
    """About the lowest confidence, float32, of each bin: thresholds between two steps are not seen."""
    if rule == "official":
        return GRID[np.clip(100 - bins, 0, 100)]
    return floors()[np.minimum(bins, BINS["paper"] - 1)]
