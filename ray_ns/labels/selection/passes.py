"""The passes over label shards: count, split by the quotas, settle what no shard can decide alone.

Pass 1 (``Tally``) counts labels by class and bin; ``rules.quotas`` says from the counts in which bin the last image of
each class lies, its edge bin. Pass 2 (``split``) decides about nearly every label by itself (``bounds``). Undecided are
the labels in edge bins and, of a scarce class, those whose draw lies about where its extra copies end. ``settle``
decides about all of these together.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow.compute as pc

from ray_ns.errors import IntegrityError
from ray_ns.keyed import hashes
from ray_ns.labels.arrow import as_arrow, as_numpy
from ray_ns.labels.selection.bins import BINS, ONE, UNREACHED, bins_of, floors, lowest_of
from ray_ns.labels.selection.rules import Quotas
from ray_ns.labels.selection.terms import Terms

BATCH = 2_000_000  # labels counted at once
CHANCE = 30.0  # a draw lies outside its band once in e**30 times


@dataclass(frozen=True)
class Bounds:
    """What decides about a label by itself, arrays of shape (classes,).

    A label is dropped if its confidence (float32) is below ``lowest``, kept from ``above`` on, and undecided in
    between. With ``first`` and ``last`` (ids, int64), one in between is undecided only from ``first`` to ``last``: a
    lower id is kept, a higher one dropped. A kept image is used ``copies`` times (int32); once more if its draw
    (uint64) is below ``low``; and it is undecided if its draw is between ``low`` and ``high``.
    """

    lowest: np.ndarray
    above: np.ndarray
    copies: np.ndarray
    low: np.ndarray
    high: np.ndarray
    first: np.ndarray | None = None
    last: np.ndarray | None = None


@dataclass(frozen=True)
class Split:
    """What one shard's labels are: ``rows`` selected with their ``copies`` (int32), ``undecided`` rows, in order.

    ``images``: how many are selected of each class, int64 (classes,); ``below``: how many draws lie below its band.
    """

    rows: np.ndarray
    copies: np.ndarray
    undecided: np.ndarray
    images: np.ndarray
    below: np.ndarray


class Tally:
    """Pass 1: counts of labels by class and confidence bin, int64 (classes, bins). Sums of tallies are tallies.

    Counting costs a walk over the whole table, whatever the rows, so it is done for many shards at once.
    """

    def __init__(self, asked: Terms) -> None:
        self._terms = asked
        self._shape = (asked.classes, BINS[asked.rule])
        self._counts = np.zeros(self._shape[0] * self._shape[1], np.int64)
        self._cells = np.empty(BATCH, np.int64)
        self._filled = 0

    def add(self, labels: np.ndarray, confidence: np.ndarray) -> None:
        """Count one shard's labelled rows: labels int16, confidence float32, both (n,).

        Raises ``ValueError`` where a confidence is NaN or outside 0..1, or a label is no class.
        """
        _check_confidence(confidence)
        _check_labels(labels, self._terms.classes)
        for at in range(0, len(labels), BATCH):
            self._add(labels[at : at + BATCH], confidence[at : at + BATCH])

    def counts(self) -> np.ndarray:
        """All that was added."""
        self._count()
        return self._counts.reshape(self._shape)

    def _add(self, labels: np.ndarray, confidence: np.ndarray) -> None:
        if self._filled + len(labels) > BATCH:
            self._count()
        cells = self._cells[self._filled : self._filled + len(labels)]
        cells[:] = labels
        bins = bins_of(cells, confidence, self._terms)
        cells *= self._shape[1]
        cells += bins
        self._filled += len(labels)

    def _count(self) -> None:
        self._counts += np.bincount(self._cells[: self._filled], minlength=len(self._counts))
        self._filled = 0


def draw(ids: np.ndarray, seed: int) -> np.ndarray:
    """A uniform uint64 for every image id: which images of a class get one copy more."""
    return hashes(ids, seed)


def bounds(quota: Quotas, asked: Terms) -> Bounds:
    """What decides about labels by themselves. Under the rule ``official`` no label is left undecided."""
    copies = quota.copies.astype(np.int32)
    if asked.rule == "official":
        lowest = np.where(quota.kept > 0, lowest_of(quota.edge, "official"), UNREACHED)
        low = _as_draw(quota.extra / np.maximum(quota.kept, 1))
        return Bounds(lowest, lowest, copies, low, low)
    lowest_in = floors()
    cut = quota.edge >= 0
    lowest = np.where(cut, np.maximum(lowest_in[quota.edge], asked.threshold), asked.threshold)
    lowest = np.where(quota.kept > 0, lowest, UNREACHED)
    above = np.where(cut, np.where(quota.edge > 0, lowest_in[quota.edge - 1], UNREACHED), lowest)
    return Bounds(lowest, above, copies, *_band(quota))


def split(ids: np.ndarray, labels: np.ndarray, confidence: np.ndarray, ends: Bounds, seed: int) -> Split:
    """Pass 2 over one shard's labelled rows: which are selected, and which are not decided yet."""
    classes = len(ends.copies)
    _check_labels(labels, classes)
    rows = np.flatnonzero(confidence >= _of_class(ends.lowest, labels))
    labels = labels.take(rows)
    undecided = confidence.take(rows) < _of_class(ends.above, labels)
    copies = _of_class(ends.copies, labels).copy()
    below = np.zeros(classes, np.int64)
    if ends.first is not None and ends.last is not None:
        edge = np.flatnonzero(undecided)
        before = ids[rows[edge]] < ends.first[labels[edge]]
        after = ids[rows[edge]] > ends.last[labels[edge]]
        copies[edge[after]] = 0
        undecided[edge[before | after]] = False
    if ends.high.any():
        values = draw(ids.take(rows), seed)
        drawn = values < _of_class(ends.low, labels)
        copies += drawn
        undecided |= (values < _of_class(ends.high, labels)) & ~drawn
        below += np.bincount(labels.take(np.flatnonzero(drawn)), minlength=classes)
    used = np.flatnonzero((copies > 0) & ~undecided)
    images = np.bincount(labels.take(used), minlength=classes)
    return Split(rows.take(used), copies.take(used), rows[undecided], images, below)


def still_possible(ids: np.ndarray, labels: np.ndarray, confidence: np.ndarray, quota: Quotas) -> np.ndarray:
    """The undecided rows that can still be kept: of a class that ends in its edge bin, the first to be taken there."""
    keep = np.ones(len(labels), bool)
    for label, rows in _by_class(labels, len(quota.edge)):
        if quota.edge[label] >= 0:
            keep[rows[_order(-confidence[rows], ids[rows])[quota.taken[label] :]]] = False
    return np.flatnonzero(keep)


def settle(
    ids: np.ndarray, labels: np.ndarray, confidence: np.ndarray, below: np.ndarray, quota: Quotas, asked: Terms
) -> tuple[np.ndarray, np.ndarray]:
    """Decide all shards' undecided rows: the copies (int32) of each, 0 where dropped, and the cut of each class.

    ``below``: the sum of all ``Split.below``. The cut is the lowest confidence kept, float32 (classes,): the threshold
    where all over it are kept, NaN where none is. Raises ``IntegrityError`` where labels are not those counted.
    """
    if asked.rule == "official":
        cuts = np.where(quota.kept > 0, lowest_of(quota.edge, "official"), np.float32(np.nan))
        return np.zeros(len(labels), np.int32), cuts
    cuts = np.where(quota.kept > 0, asked.threshold, np.float32(np.nan))
    copies = np.zeros(len(labels), np.int32)
    for label, rows in _by_class(labels, asked.classes):
        left = quota.extra[label] - below[label]
        if quota.taken[label] > len(rows) or (quota.extra[label] and not 0 <= left <= len(rows)):
            raise IntegrityError(
                f"class {label}: its labels are not those that were counted. Delete the folder counts beside the "
                f"labels and run the command again. If that does not help, the draws of its copies are uneven, as "
                f"happens once in {np.exp(CHANCE):.0e} times: set another run.seed."
            )
        copies[rows] = quota.copies[label]
        if quota.edge[label] >= 0:
            order = _order(-confidence[rows], ids[rows])
            copies[rows[order[quota.taken[label] :]]] = 0
            cuts[label] = confidence[rows[order[quota.taken[label] - 1]]]
        if quota.extra[label]:
            copies[rows[_order(draw(ids[rows], asked.seed), ids[rows])[:left]]] += 1
    return copies, cuts


def of_one_shard(
    ids: np.ndarray, labels: np.ndarray, confidence: np.ndarray, quota: Quotas, asked: Terms
) -> tuple[np.ndarray, np.ndarray]:
    """The rows that are selected, and their copies (int32), where one shard's labels are all there are."""
    made = split(ids, labels, confidence, bounds(quota, asked), asked.seed)
    at = made.undecided
    copies, _ = settle(ids[at], labels[at], confidence[at], made.below, quota, asked)
    used = copies > 0
    return np.concatenate([made.rows, at[used]]), np.concatenate([made.copies, copies[used]])


def _check_confidence(confidence: np.ndarray) -> None:
    """Raise ``ValueError`` where a confidence is NaN or outside 0..1."""
    if len(confidence) and confidence.view(np.uint32).max() > ONE:
        row = int((confidence.view(np.uint32) > ONE).argmax())
        raise ValueError(f"confidence {confidence[row]} in row {row}; expected 0..1")


def _check_labels(labels: np.ndarray, classes: int) -> None:
    """Raise ``ValueError`` where a label is no class."""
    if len(labels) and (labels.min() < 0 or labels.max() >= classes):
        row = int(((labels < 0) | (labels >= classes)).argmax())
        raise ValueError(f"label {labels[row]} in row {row}; expected 0..{classes - 1}")


def _of_class(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """``values[labels]`` of checked labels, read-only. NumPy would first make eight bytes of each int16 label."""
    return as_numpy(pc.take(as_arrow(values), as_arrow(labels), boundscheck=False))


def _as_draw(share: np.ndarray) -> np.ndarray:
    """The draw, uint64, below which a ``share`` of all draws lies."""
    return np.array([min(max(int(it * 2**64), 0), 2**64 - 1) for it in share.tolist()], np.uint64)


def _band(quota: Quotas) -> tuple[np.ndarray, np.ndarray]:
    """Two draws per class, uint64 (classes,) each, with the last drawn image between them, but for ``CHANCE``.

    Draws are uniform, so Chernoff's bounds say beforehand about where the ``extra``-th lowest of ``kept`` lies: of n
    draws, a or fewer are below (a + sqrt(2 a c) + 2 c) / n, and a or more below (a - sqrt(2 a c)) / n, once in e**c
    times each.
    """
    kept = np.maximum(quota.kept, 1)
    few = np.minimum(quota.extra, kept - quota.extra)  # counted from the nearer end
    near, far = few - np.sqrt(2 * few * CHANCE), few + np.sqrt(2 * few * CHANCE) + 2 * CHANCE
    low = np.where(few == quota.extra, near, kept - far) / kept
    high = np.where(few == quota.extra, far, kept - near) / kept
    return _as_draw(low), np.where(quota.extra > 0, _as_draw(high), np.uint64(0))


def _by_class(labels: np.ndarray, classes: int) -> Iterator[tuple[int, np.ndarray]]:
    """Every class and its row numbers: whatever is done with one at a time needs no memory for all."""
    order = np.argsort(labels, kind="stable")
    ends = np.searchsorted(labels, np.arange(classes + 1), sorter=order)
    return ((label, order[begin:end]) for label, (begin, end) in enumerate(pairwise(ends.tolist())))


def _order(values: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Row numbers in the order of (value, id)."""
    return np.lexsort((ids, values))
