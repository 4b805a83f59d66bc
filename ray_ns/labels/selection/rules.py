"""Filter by confidence and balance by class: which labels train the student, and how many copies of each.

Rule ``paper`` (Noisy Student, section 3): labels of confidence at least the threshold; the ``K`` most confident of each
class, ties by image id; a scarce class is duplicated so that it totals exactly ``K``. Rule ``official`` (the released
``filter_unlabel.py``): a threshold per class on a grid of 0.01, and so many copies of each label over it that the class
totals about ``K``, by a coin per image; the coin is keyed here, so it falls the same way every time.

Nothing is shuffled or sorted as a whole, and shards are read once to be written: a histogram over them (``Tally``)
finds for each class the one bin that holds its K-th label (``quotas``), which decides about nearly every label by
itself (``bounds``, ``split``). The few in that bin, and of a scarce class those whose draw lies about where its copies
end, are gathered from all shards and decided together (``settle``). All steps take shards in any order and of any
size; the memory they need grows with the classes, not with the labels.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.compute as pc

from ray_ns.errors import IntegrityError
from ray_ns.keyed import hashes
from ray_ns.labels.arrow import as_arrow, as_numpy

if TYPE_CHECKING:
    from ray_ns.config import Select

VERSION = "select-2"  # of the rules and of how what they give is laid out in parts
ONE = 0x3F800000  # the bits of 1.0: 0..ONE are the float32 of 0..1, in order
SHIFT = 18  # bins of 1/32 octave of a label's distance from 1
FIRST = (ONE >> SHIFT) - 1
GRID = (np.arange(101) / 100).astype(np.float32)
OVER_100 = np.nextafter(np.float32(100), np.float32(101))
BINS = {"paper": ((127 + 30) << (23 - SHIFT)) - FIRST + len(GRID) + 1, "official": len(GRID)}
BATCH = 2_000_000
QUANTILES = (0.1, 0.5, 0.9)
AUTO = -1
NOTHING = np.float32(2)  # a cut that no confidence reaches
HIGHEST = np.iinfo(np.int64).max
CHANCE = 30.0  # a draw lies outside its band once in e**30 times
EDGE_ROWS = 4_000_000


@dataclass(frozen=True)
class Terms:
    """What is asked, by class: ``threshold`` float32 and ``wanted`` int64 (K, or AUTO) of shape (classes,)."""

    rule: str
    threshold: np.ndarray
    wanted: np.ndarray
    balance: bool
    seed: int

    @property
    def classes(self) -> int:
        return len(self.threshold)

    @property
    def on_grid(self) -> bool:
        """Whether bins end at the thresholds by themselves, so that counts made for any such terms serve for these."""
        return self.rule == "paper" and bool(np.isin(self.threshold, GRID).all())

    def below(self, labels: np.ndarray, confidence: np.ndarray) -> np.ndarray:
        """Which confidences, float32, lie below the threshold of their class (labels int64), bool (n,)."""
        if (self.threshold == self.threshold[0]).all():
            return confidence < self.threshold[0]  # a look-up per label takes ten times as long
        return confidence < self.threshold[labels]


@dataclass(frozen=True)
class Quotas:
    """What each class gives: int64 (classes,) each, but ``threshold`` and ``quantiles`` (classes, 3), float32.

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


@dataclass(frozen=True)
class Bounds:
    """What a label needs to be decided about by itself, arrays of shape (classes,).

    It is dropped where its confidence (float32) is below ``lowest``, kept from ``above`` on, and undecided in between;
    with ``first`` and ``last`` (ids, int64) only from the one to the other: before, it is kept, and dropped after. A
    kept one is used ``copies`` times (int32), once more if its draw (uint64) is below ``low``, and is undecided from
    there to below ``high``.
    """

    lowest: np.ndarray
    above: np.ndarray
    copies: np.ndarray
    low: np.ndarray
    high: np.ndarray
    first: np.ndarray | None = None
    last: np.ndarray | None = None


@dataclass(frozen=True)
class Ties:
    """One shard's lowest and highest image id, and its rows in crowded edge bins per class, int32 (classes,)."""

    first: int
    last: int
    held: np.ndarray


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


def terms(settings: "Select", classes: int, seed: int) -> Terms:
    """What ``settings`` ask of ``classes`` classes."""
    threshold = np.full(classes, settings.threshold, np.float32)
    wanted = np.full(classes, AUTO if settings.per_class == "auto" else settings.per_class, np.int64)
    for label, value in settings.thresholds.items():
        threshold[label] = value
    for label, count in settings.quotas.items():
        wanted[label] = count
    return Terms(settings.rule, threshold, wanted, settings.balance, seed)


def everything(classes: int, seed: int) -> Terms:
    """Every label once."""
    return Terms("paper", np.zeros(classes, np.float32), np.full(classes, AUTO, np.int64), balance=False, seed=seed)


def check(labels: np.ndarray, confidence: np.ndarray, classes: int) -> None:
    """Raise ``ValueError`` where a confidence is NaN or outside 0..1, or a label is no class."""
    if not len(labels):
        return
    if confidence.view(np.uint32).max() > ONE:
        row = int((confidence.view(np.uint32) > ONE).argmax())
        raise ValueError(f"confidence {confidence[row]} in row {row}; expected 0..1")
    _check_labels(labels, classes)


def draw(ids: np.ndarray, seed: int) -> np.ndarray:
    """A uniform uint64 for every image id: which images of a class get one copy more."""
    return hashes(ids, seed)


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
        """Count one shard's labelled rows: labels int16, confidence float32, both (n,)."""
        check(labels, confidence, self._terms.classes)
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
        bins = _bins(cells, confidence, self._terms)
        cells *= self._shape[1]
        cells += bins
        self._filled += len(labels)

    def _count(self) -> None:
        self._counts += np.bincount(self._cells[: self._filled], minlength=len(self._counts))
        self._filled = 0


def quotas(counts: np.ndarray, asked: Terms) -> Quotas:
    """How many images each class gives, from the counts of all shards.

    K ``auto`` is all labels over their thresholds / classes. A class without a label over its threshold gives none,
    whatever K is. Under the official rule ``kept`` and the copies are what is expected, not what the coins give.
    """
    rows = np.arange(asked.classes)
    reached = counts.cumsum(1)
    over = reached[rows, _bins(rows, asked.threshold, asked)]
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


def bounds(quota: Quotas, asked: Terms) -> Bounds:
    """What decides about labels by themselves. Under the rule ``official`` that is everything."""
    copies = quota.copies.astype(np.int32)
    if asked.rule == "official":
        lowest = np.where(quota.kept > 0, GRID[np.clip(100 - quota.edge, 0, 100)], NOTHING)
        low = _as_draw(quota.extra / np.maximum(quota.kept, 1))
        return Bounds(lowest, lowest, copies, low, low)
    floors = _floors()
    cut = quota.edge >= 0
    lowest = np.where(cut, np.maximum(floors[quota.edge], asked.threshold), asked.threshold)
    lowest = np.where(quota.kept > 0, lowest, NOTHING)
    above = np.where(cut, np.where(quota.edge > 0, floors[quota.edge - 1], NOTHING), lowest)
    return Bounds(lowest, above, copies, *_band(quota))


def crowded(quota: Quotas) -> np.ndarray:
    """Classes (bool) whose edge bin is one single confidence, where all edge bins hold too many rows to be gathered.

    A teacher that is quite sure of everything gives millions of labels the very same confidence.
    """
    floors = _floors()
    single = (quota.edge == 0) | (floors[quota.edge - 1] == np.nextafter(floors[quota.edge], NOTHING))
    return single & (quota.edge >= 0) & (quota.held.sum() > EDGE_ROWS)


def ties(ids: np.ndarray, labels: np.ndarray, confidence: np.ndarray, quota: Quotas) -> Ties | None:
    """How many of a shard's labelled rows have their class's crowded confidence; None for a shard without rows."""
    if not len(ids):
        return None
    at = np.where(crowded(quota), _floors()[quota.edge], NOTHING)
    index = labels.astype(np.int64)
    held = np.bincount(index[confidence == at[index]], minlength=len(at)).astype(np.int32)
    return Ties(int(ids.min()), int(ids.max()), held)


def narrowed(quota: Quotas, ends: Bounds, found: Sequence[Ties]) -> tuple[Quotas, Bounds]:
    """Of each crowded class, the one shard in which its last image lies, as shards hold ids in runs of their own.

    Where they do not, everything is gathered, as if nothing were crowded.
    """
    found = sorted(found, key=lambda it: it.first)
    if any(a.last >= b.first for a, b in pairwise(found)):
        return quota, ends
    here = np.flatnonzero(crowded(quota))
    reached = np.cumsum([it.held[here] for it in found], axis=0, dtype=np.int64)
    shard = (reached < quota.taken[here]).sum(0)
    first, last = np.zeros(len(quota.edge), np.int64), np.full(len(quota.edge), HIGHEST)
    first[here] = np.array([it.first for it in found])[shard]
    last[here] = np.array([it.last for it in found])[shard]
    columns = np.arange(len(here))
    taken = quota.taken.copy()
    taken[here] -= np.where(shard > 0, reached[shard - 1, columns], 0)
    return replace(quota, taken=taken), replace(ends, first=first, last=last)


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


def contenders(ids: np.ndarray, labels: np.ndarray, confidence: np.ndarray, quota: Quotas) -> np.ndarray:
    """Of undecided rows those that can still be kept: at the edge of a class no more than are to be taken there."""
    keep = np.ones(len(labels), bool)
    for label, rows in _by_class(labels, len(quota.edge)):
        if quota.edge[label] >= 0:
            keep[rows[_order(-confidence[rows], ids[rows])[quota.taken[label] :]]] = False
    return np.flatnonzero(keep)


def settle(
    ids: np.ndarray, labels: np.ndarray, confidence: np.ndarray, below: np.ndarray, quota: Quotas, asked: Terms
) -> tuple[np.ndarray, np.ndarray]:
    """All shards' undecided rows, decided: the copies (int32) of each, 0 where dropped, and how far each class goes.

    ``below``: the sum of all ``Split.below``. The last is the lowest confidence kept, float32 (classes,): the threshold
    where all over it are kept, NaN where none is. Raises ``IntegrityError`` where labels are not those counted.
    """
    if asked.rule == "official":
        reaches = np.where(quota.kept > 0, GRID[np.clip(100 - quota.edge, 0, 100)], np.float32(np.nan))
        return np.zeros(len(labels), np.int32), reaches
    reaches = np.where(quota.kept > 0, asked.threshold, np.float32(np.nan))
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
            reaches[label] = confidence[rows[order[quota.taken[label] - 1]]]
        if quota.extra[label]:
            copies[rows[_order(draw(ids[rows], asked.seed), ids[rows])[:left]]] += 1
    return copies, reaches


def of_one_shard(
    ids: np.ndarray, labels: np.ndarray, confidence: np.ndarray, quota: Quotas, asked: Terms
) -> tuple[np.ndarray, np.ndarray]:
    """The rows that are selected, and their copies (int32), where one shard's labels are all there are."""
    made = split(ids, labels, confidence, bounds(quota, asked), asked.seed)
    at = made.undecided
    copies, _ = settle(ids[at], labels[at], confidence[at], made.below, quota, asked)
    used = copies > 0
    return np.concatenate([made.rows, at[used]]), np.concatenate([made.copies, copies[used]])


def carry(ids: np.ndarray, chosen: np.ndarray, copies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An earlier selection (``chosen`` ids with ``copies``) in one shard's rows: their row numbers and copies."""
    _, rows, at = np.intersect1d(ids, chosen, assume_unique=True, return_indices=True)
    return rows, copies[at]


def churn(
    ids: np.ndarray, labels: np.ndarray, ids_before: np.ndarray, labels_before: np.ndarray, classes: int
) -> np.ndarray:
    """How labels changed, of the images labelled both times: int64 (3, classes).

    By the class before: how many were compared, how many changed; by the class now: how many came from another.
    """
    _, rows, at = np.intersect1d(ids, ids_before, assume_unique=True, return_indices=True)
    now, before = labels[rows], labels_before[at]
    changed = now != before
    counted = before, before[changed], now[changed]
    return np.stack([np.bincount(it, minlength=classes) for it in counted])


def _of_class(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """``values[labels]`` of checked labels, read-only: NumPy would make eight bytes of each int16 before."""
    return as_numpy(pc.take(as_arrow(values), as_arrow(labels), boundscheck=False))


def _check_labels(labels: np.ndarray, classes: int) -> None:
    """Raise ``ValueError`` where a label is no class."""
    if len(labels) and (labels.min() < 0 or labels.max() >= classes):
        row = int(((labels < 0) | (labels >= classes)).argmax())
        raise ValueError(f"label {labels[row]} in row {row}; expected 0..{classes - 1}")


def _bins(labels: np.ndarray, confidence: np.ndarray, asked: Terms) -> np.ndarray:
    """Bins int32 (n,) that never rise with the confidence; a threshold ends the bin it lies in.

    ``official``: steps of 0.01. ``paper``: the same steps, and within them 32 to every octave of the distance from 1,
    which float32 holds exactly as an integer, so that the ``K`` most confident labels of a full class end in a narrow
    bin however near to 1 they are.
    """
    if asked.rule == "official":
        return _steps(confidence)
    bins = _base(confidence)
    if not asked.on_grid:
        bins += asked.below(labels, confidence)
    return bins


def _steps(confidence: np.ndarray) -> np.ndarray:
    """How many steps of the grid lie above each confidence, int32."""
    step = (confidence * OVER_100).astype(np.int32)  # never too few, and one too many just below a step
    step -= GRID[step] > confidence
    return 100 - step


def _base(confidence: np.ndarray) -> np.ndarray:
    """The bins of the rule ``paper`` but for thresholds: both parts never rise, so they end wherever either does."""
    distance = ONE - confidence.view(np.int32)
    bins = distance.astype(np.float32).view(np.int32)
    bins >>= SHIFT
    bins -= FIRST
    np.maximum(bins, 0, out=bins)
    bins += _steps(confidence)
    return bins


@cache
def _floors() -> np.ndarray:
    """The lowest confidence, float32, of each bin of the rule ``paper`` or of the bins before it, found by halving."""
    bins = np.arange(BINS["paper"])
    low, high = np.zeros(len(bins), np.int32), np.full(len(bins), ONE, np.int32)
    while (low < high).any():
        middle = (low + high) // 2
        within = _base(middle.view(np.float32)) <= bins
        low, high = np.where(within, low, middle + 1), np.where(within, middle, high)
    return high.astype(np.int32).view(np.float32)


def _official(counts: np.ndarray, reached: np.ndarray, over: np.ndarray, k: np.ndarray, asked: Terms) -> Quotas:
    """The released rule: the first step of the grid from 1 down over which at least K labels lie, else the threshold.

    Copies are K / labels over it: its whole part for each, and one more with the rest as probability.
    """
    rows = np.arange(asked.classes)
    lowest = _bins(rows, asked.threshold, asked)
    edge = np.minimum((reached < k[:, None]).sum(1), lowest)
    kept = np.where(k > 0, reached[rows, edge], 0)
    full = np.where(kept > 0, k, 0)
    copies = full // np.maximum(kept, 1)
    quantiles = _quantiles(reached, asked)
    held = counts[rows, edge]
    return Quotas(reached[:, -1], over, kept, copies, full - copies * kept, edge, held, held, quantiles)


def _quantiles(reached: np.ndarray, asked: Terms) -> np.ndarray:
    """Confidences (classes, 3) under which the shares ``QUANTILES`` of a class's candidates lie; NaN where none are."""
    candidates = reached[:, -1]
    found = np.full((asked.classes, len(QUANTILES)), np.nan, np.float32)
    for column, share in enumerate(QUANTILES):
        bins = (reached < np.ceil((1 - share) * candidates)[:, None]).sum(1)
        found[:, column] = np.where(candidates > 0, _lowest(bins, asked), np.nan)
    return found


def _lowest(bins: np.ndarray, asked: Terms) -> np.ndarray:
    """About the lowest confidence, float32, of each bin."""
    if asked.rule == "official":
        return GRID[np.clip(100 - bins, 0, 100)]
    return _floors()[np.minimum(bins, BINS["paper"] - 1)]


def _as_draw(share: np.ndarray) -> np.ndarray:
    """The draw, uint64, below which a ``share`` of all draws lies."""
    return np.array([min(max(int(it * 2**64), 0), 2**64 - 1) for it in share.tolist()], np.uint64)


def _band(quota: Quotas) -> tuple[np.ndarray, np.ndarray]:
    """Draws, uint64 (classes,) each, between which the last drawn one of each class lies, but for ``CHANCE``.

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
