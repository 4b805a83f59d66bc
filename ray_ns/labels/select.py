"""Filter by confidence and balance by class: which labels train the student, and how many copies of each.

The rule is the paper's (Noisy Student, section 3): labels of confidence at least ``threshold``; the ``K`` most
confident of each class, ties by image id; a scarce class is duplicated so that it totals exactly ``K``. Nothing is
shuffled or sorted as a whole: a histogram over the shards finds for each class the one bin that holds its K-th label,
the rows of these bins are looked at, and each class gets an exact cut (a confidence and an image id). Memory does not
grow with the number of labels. The steps, each over label shards in any order: ``count`` -> ``quotas`` -> ``on_edge``
-> ``cuts`` -> ``choose``.
"""

from dataclasses import dataclass

import numpy as np

from ray_ns.keyed import hashes

CONFIDENCE_SHIFT = 15
LOWEST_BITS = 0x3A800000  # 2 ** -10: every confidence below it shares the lowest bin
CONFIDENCE_BINS = ((0x3F800000 - LOWEST_BITS) >> CONFIDENCE_SHIFT) + 1
DRAW_BINS = 4096


@dataclass(frozen=True)
class Counts:
    """Histograms of labels: all of them, and those over the threshold by confidence bin and by draw bin.

    ``candidates`` int64 (classes,), ``confidence`` int64 (classes, CONFIDENCE_BINS), ``draw`` int64 (classes,
    DRAW_BINS). Counts of several shards are added with ``+``.
    """

    candidates: np.ndarray
    confidence: np.ndarray
    draw: np.ndarray

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.candidates + other.candidates, self.confidence + other.confidence, self.draw + other.draw)


@dataclass(frozen=True)
class Quotas:
    """What each class gives: int64 (classes,) each.

    ``over``: labels at or over the threshold; ``kept``: distinct images that are used; ``copies`` and ``extra``: every
    kept image is used ``copies`` times and ``extra`` drawn ones once more, so ``kept x copies + extra`` is the class's
    total. ``edge`` and ``draw_edge``: the bins that hold the last image kept and the last one drawn (-1: none), with
    how many of that bin's images are taken.
    """

    candidates: np.ndarray
    over: np.ndarray
    kept: np.ndarray
    copies: np.ndarray
    extra: np.ndarray
    edge: np.ndarray
    edge_taken: np.ndarray
    draw_edge: np.ndarray
    draw_edge_taken: np.ndarray

    @property
    def totals(self) -> np.ndarray:
        """Images per class with their copies."""
        return self.kept * self.copies + self.extra


@dataclass(frozen=True)
class Cuts:
    """The exact ends: of each class, the last image kept and the last one drawn, as (value, image id).

    An image is kept where (-confidence, id) <= (-confidence_cut, id_cut), drawn where (draw, id) <= the draw cut.
    """

    confidence: np.ndarray
    confidence_id: np.ndarray
    draw: np.ndarray
    draw_id: np.ndarray


def check_confidence(confidence: np.ndarray) -> None:
    """Raise ``ValueError`` where a confidence is NaN or outside 0..1."""
    wrong = ~((confidence >= 0) & (confidence <= 1))
    if wrong.any():
        raise ValueError(f"confidence {confidence[wrong][0]} in row {int(wrong.argmax())}; expected 0..1")


def draw(ids: np.ndarray, seed: int) -> np.ndarray:
    """A uniform uint64 for every image id: which images of a scarce class get one copy more."""
    return hashes(ids, seed)


def count(
    ids: np.ndarray, labels: np.ndarray, confidence: np.ndarray, classes: int, threshold: float, seed: int
) -> Counts:
    """Pass 1 over one shard's labelled rows: ids int64, labels int, confidence float32, all (n,)."""
    check_confidence(confidence)
    over = confidence >= np.float32(threshold)
    cells = labels[over].astype(np.int64)
    by_confidence = np.bincount(
        cells * CONFIDENCE_BINS + _confidence_bin(confidence[over]), minlength=classes * CONFIDENCE_BINS
    )
    by_draw = np.bincount(cells * DRAW_BINS + _draw_bin(draw(ids[over], seed)), minlength=classes * DRAW_BINS)
    return Counts(
        np.bincount(labels, minlength=classes),
        by_confidence.reshape(classes, CONFIDENCE_BINS),
        by_draw.reshape(classes, DRAW_BINS),
    )


def quotas(counts: Counts, per_class: int | str, balance: bool) -> Quotas:
    """How many images each class gives. ``per_class`` is K, or ``auto``: images over the threshold / classes.

    A class without any image over the threshold gives none, whatever K is.
    """
    over = counts.confidence.sum(1)
    k = max(int(over.sum()) // len(over), 1) if per_class == "auto" else int(per_class)
    kept = np.minimum(over, k) if balance else over
    full = np.where(kept > 0, k, 0) if balance else over
    copies = full // np.maximum(kept, 1)
    extra = full - copies * kept
    edge, edge_taken = _edges(counts.confidence[:, ::-1], np.where(kept < over, kept, 0))
    draw_edge, draw_edge_taken = _edges(counts.draw, extra)
    edge = np.where(edge >= 0, CONFIDENCE_BINS - 1 - edge, -1)
    return Quotas(counts.candidates, over, kept, copies, extra, edge, edge_taken, draw_edge, draw_edge_taken)


def on_edge(
    ids: np.ndarray, labels: np.ndarray, confidence: np.ndarray, quota: Quotas, threshold: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Pass 2 over one shard: the row numbers that lie in their class's edge bin, and in its draw edge bin."""
    over = confidence >= np.float32(threshold)
    at_edge = over & (quota.edge[labels] == _confidence_bin(confidence))
    at_draw_edge = over & (quota.draw_edge[labels] == _draw_bin(draw(ids, seed)))
    return np.flatnonzero(at_edge), np.flatnonzero(at_draw_edge)


def cuts(
    quota: Quotas, edge: tuple[np.ndarray, np.ndarray, np.ndarray], draw_edge: tuple[np.ndarray, np.ndarray], seed: int
) -> Cuts:
    """The exact ends, from the edge rows of all shards: (ids, labels, confidence) and (ids, labels) of the draw's."""
    ids, labels, confidence = edge
    drawn_ids, drawn_labels = draw_edge
    last = _last(labels, -confidence.astype(np.float64), ids, quota.edge_taken)
    values = draw(drawn_ids, seed)
    last_drawn = _last(drawn_labels, values, drawn_ids, quota.draw_edge_taken)
    highest = np.iinfo(np.int64).max
    unlimited = np.where(quota.kept == quota.over, highest, np.int64(-1))
    result = Cuts(
        np.where(unlimited == highest, np.float32(0), np.float32(2)),
        unlimited,
        np.zeros(len(quota.kept), np.uint64),
        np.full(len(quota.kept), -1, np.int64),
    )
    for label, row in last.items():
        result.confidence[label], result.confidence_id[label] = confidence[row], ids[row]
    for label, row in last_drawn.items():
        result.draw[label], result.draw_id[label] = values[row], drawn_ids[row]
    return result


def choose(
    ids: np.ndarray,
    labels: np.ndarray,
    confidence: np.ndarray,
    quota: Quotas,
    cut: Cuts,
    threshold: float,
    seed: int,
) -> np.ndarray:
    """Pass 3 over one shard: copies of every row, int32 (n,), 0 where it is not selected."""
    over = confidence >= np.float32(threshold)
    above = confidence > cut.confidence[labels]
    kept = over & (above | ((confidence == cut.confidence[labels]) & (ids <= cut.confidence_id[labels])))
    values = draw(ids, seed)
    below = values < cut.draw[labels]
    drawn = below | ((values == cut.draw[labels]) & (ids <= cut.draw_id[labels]))
    return np.where(kept, quota.copies[labels] + drawn, 0).astype(np.int32)


def _confidence_bin(confidence: np.ndarray) -> np.ndarray:
    """A bin that never falls as confidence rises: the upper bits of a float32 in 0..1 order as the float does."""
    bits = np.ascontiguousarray(confidence, np.float32).view(np.uint32).astype(np.int64)
    return np.clip((bits - LOWEST_BITS) >> CONFIDENCE_SHIFT, 0, CONFIDENCE_BINS - 1)


def _draw_bin(values: np.ndarray) -> np.ndarray:
    return (values >> np.uint64(52)).astype(np.int64)


def _edges(histogram: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each row of ``histogram``, the bin that holds the ``wanted``-th item from the left, and how many it gives.

    (-1, 0) where nothing is wanted.
    """
    reached = histogram.cumsum(1)
    edge = np.minimum((reached < wanted[:, None]).sum(1), histogram.shape[1] - 1)
    rows = np.arange(len(wanted))
    before = reached[rows, edge] - histogram[rows, edge]
    return np.where(wanted > 0, edge, -1), np.where(wanted > 0, wanted - before, 0)


def _last(labels: np.ndarray, values: np.ndarray, ids: np.ndarray, taken: np.ndarray) -> dict[int, int]:
    """Of each class, the row of the ``taken``-th item in the order of (value, id)."""
    order = np.lexsort((ids, values, labels))
    ordered = labels[order]
    return {
        int(label): int(order[np.searchsorted(ordered, label) + taken[label] - 1])
        for label in np.unique(ordered)
        if taken[label] > 0
    }
