"""What each class gives, from the counts of its labels by confidence bin: the rules ``paper`` and ``official``.

Rule ``paper``: the K most confident labels over the threshold; a scarce class is duplicated to K. Rule ``official``
(the released ``filter_unlabel.py``): a threshold per class on a grid of 0.01, and so many copies of each label over it
that the class totals about K, by a coin per image. The coin is keyed here, so it falls the same way every time.
"""

from dataclasses import dataclass

import numpy as np

from ray_ns.labels.selection.bins import bins_of, lowest_of
from ray_ns.labels.selection.terms import AUTO, Terms

VERSION = "select-2"  # of the rules and of how what they give is laid out in parts
QUANTILES = (0.1, 0.5, 0.9)


@dataclass(frozen=True)
class Quotas:
    """What each class gives: int64 (classes,) each, but ``quantiles``, float32 (classes, 3).

    ``over``: labels at or over the threshold; ``kept``: distinct images that are used; every kept image is used
    ``copies`` times and ``extra`` drawn ones once more. ``edge``: the bin that holds the last image kept (-1: all
    are kept), with ``taken`` of its ``held`` labels. ``quantiles`` are of the candidates' confidence, within a bin.
    """

    candidates: np.ndarray
    over: np.ndarray
    kept: np.ndarray
    copies: np.ndarray
    extra: np.ndarray
    edge: np.ndarray
    taken: np.ndarray
    held: np.ndarray
    quantiles: np.ndarray

    @property
    def totals(self) -> np.ndarray:
        """Images per class with their copies."""
        return self.kept * self.copies + self.extra


def quotas(counts: np.ndarray, asked: Terms) -> Quotas:
    """How many images each class gives, from the counts of all shards, int64 (classes, bins).

    K ``auto`` is all labels over their thresholds / classes. A class without a label over its threshold gives none,
    whatever K is. Under the official rule ``kept`` and the copies are what is expected, not what the coins give.
    """
    rows = np.arange(asked.classes)
    reached = counts.cumsum(1)
    over = reached[rows, bins_of(rows, asked.threshold, asked)]
    auto = max(int(over.sum()) // asked.classes, 1)
    k = np.where(asked.wanted == AUTO, auto, asked.wanted) if asked.balance else over
    if asked.rule == "official":
        return _official(counts, reached, over, k, asked)
    kept = np.minimum(over, k)
    full = np.where(kept > 0, k, 0)
    copies = full // np.maximum(kept, 1)
    cut = (kept > 0) & (kept < over)
    edge = np.minimum((reached < kept[:, None]).sum(1), counts.shape[1] - 1)
    held = counts[rows, edge]
    taken = kept - (reached[rows, edge] - held)
    ends = (np.where(cut, edge, -1), np.where(cut, taken, 0), np.where(cut, held, 0))
    return Quotas(reached[:, -1], over, kept, copies, full - copies * kept, *ends, _quantiles(reached, asked))


def _official(counts: np.ndarray, reached: np.ndarray, over: np.ndarray, k: np.ndarray, asked: Terms) -> Quotas:
    """The released rule: the first step of the grid from 1 down over which at least K labels lie, else the threshold.

    Copies are K / labels over it: its whole part for each, and one more with the rest as probability.
    """
    rows = np.arange(asked.classes)
    edge = np.minimum((reached < k[:, None]).sum(1), bins_of(rows, asked.threshold, asked))
    kept = np.where(k > 0, reached[rows, edge], 0)
    full = np.where(kept > 0, k, 0)
    copies = full // np.maximum(kept, 1)
    held = counts[rows, edge]
    quantiles = _quantiles(reached, asked)
    return Quotas(reached[:, -1], over, kept, copies, full - copies * kept, edge, held, held, quantiles)


def _quantiles(reached: np.ndarray, asked: Terms) -> np.ndarray:
    """Confidences (classes, 3) under which the shares ``QUANTILES`` of a class's candidates lie; NaN where none are."""
    candidates = reached[:, -1]
    found = np.full((asked.classes, len(QUANTILES)), np.nan, np.float32)
    for column, share in enumerate(QUANTILES):
        bins = (reached < np.ceil((1 - share) * candidates)[:, None]).sum(1)
        found[:, column] = np.where(candidates > 0, lowest_of(bins, asked.rule), np.nan)
    return found
