"""Labels to select from, and the selection as one would write it who has all of them in memory."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ray_ns.config import Select
from ray_ns.labels.selection import passes, rules, terms, ties

Rows = tuple[np.ndarray, np.ndarray, np.ndarray]  # ids, labels, confidence


def chosen(
    labels: list[int],
    confidence: list[float],
    classes: int,
    threshold: float,
    k: int | str,
    ids: list[int] | None = None,
    **settings: Any,
) -> tuple[list[int], rules.Quotas]:
    """Copies of every row when one shard holds them all; ``ids``: None for the rows' numbers."""
    asked = terms.of_settings(Select(threshold=threshold, per_class=k, **settings), classes, 0)
    rows = np.array(ids or range(len(labels))), np.array(labels, np.int16), np.array(confidence, np.float32)
    tally = passes.Tally(asked)
    tally.add(*rows[1:])
    quota = rules.quotas(tally.counts(), asked)
    copies = np.zeros(len(labels), np.int32)
    used, times = passes.of_one_shard(*rows, quota, asked)
    copies[used] = times
    return copies.tolist(), quota


@dataclass(frozen=True)
class Case:
    rows: Rows
    classes: int
    threshold: float
    k: int | str
    balance: bool
    seed: int

    @property
    def asked(self) -> terms.Terms:
        settings = Select(threshold=self.threshold, per_class=self.k, balance=self.balance)
        return terms.of_settings(settings, self.classes, self.seed)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count, classes = draw(st.integers(0, 400)), draw(st.integers(1, 9))
    ids = rng.choice(10**6, count, replace=False).astype(np.int64) + (draw(st.integers(0, 3)) << 32)
    skew = draw(st.sampled_from([0, 1, 4]))
    labels = (rng.integers(0, classes, count) * rng.random(count) ** skew).astype(np.int16)
    confidence = rng.beta(0.7, 0.6, count).astype(np.float32)
    digits = draw(st.sampled_from([None, 1, 2, 0]))
    if digits is not None:  # many ties
        confidence = np.round(confidence, digits)
    if draw(st.booleans()):  # all in a few bins, or below the lowest
        confidence = (confidence * np.float32(draw(st.sampled_from([1e-4, 1e-2])))).astype(np.float32)
    threshold = draw(st.sampled_from([0.0, 0.1, 0.3, 0.3337, 0.7, 1.0]))
    k = draw(st.sampled_from(["auto", 1, 2, 5, 17, 100]))
    return Case((ids, labels, confidence), classes, threshold, k, draw(st.booleans()), draw(st.integers(0, 9)))


def in_passes(rows: Rows, shards: list[np.ndarray], asked: terms.Terms) -> tuple[np.ndarray, rules.Quotas]:
    """Copies of every row, selected in three passes over ``shards`` (row numbers), and the quotas."""
    parts = [tuple(column[shard] for column in rows) for shard in shards]
    counts = []
    for _, labels, confidence in parts:
        tally = passes.Tally(asked)
        tally.add(labels, confidence)
        counts.append(tally.counts())
    quota = rules.quotas(sum(counts), asked)
    near, ends = quota, passes.bounds(quota, asked)
    if ties.has_crowded_tie(quota).any():
        found = [ties.in_shard(*part, quota) for part in parts]
        near, ends = ties.within_one_shard(quota, ends, [it for it in found if it is not None])
    copies = np.zeros(len(rows[0]), np.int32)
    below = np.zeros(asked.classes, np.int64)
    open_rows = []
    for shard, part in zip(shards, parts, strict=True):
        made = passes.split(*part, ends, asked.seed)
        copies[shard[made.rows]] = made.copies
        np.testing.assert_array_equal(made.images, np.bincount(part[1][made.rows], minlength=asked.classes))
        times = np.bincount(part[1][made.rows], made.copies, minlength=asked.classes)
        np.testing.assert_array_equal(made.images * ends.copies + made.below, times)
        below += made.below
        open_rows.append(shard[made.undecided])
    at = np.concatenate(open_rows)
    assert not copies[at].any()
    at = at[passes.still_possible(*(column[at] for column in rows), near)]
    times, cuts = passes.settle(*(column[at] for column in rows), below, near, asked)
    chosen = np.flatnonzero(times)
    times = times[chosen]
    copies[at[chosen]] = times
    for label in range(asked.classes):
        mine = (rows[1] == label) & (copies > 0)
        lowest = rows[2][mine].min() if mine.any() else np.nan
        if asked.rule == "paper" and quota.edge[label] >= 0:
            assert cuts[label] == lowest
        else:
            assert not lowest < cuts[label]
    return copies, quota


def by_shards(case: Case, shards: list[np.ndarray]) -> tuple[np.ndarray, rules.Quotas]:
    return in_passes(case.rows, shards, case.asked)


def by_sorting(case: Case) -> np.ndarray:
    """The same rule, written as one says it: sort each class, take K, hand out copies."""
    ids, labels, confidence = case.rows
    over = confidence >= np.float32(case.threshold)
    if not case.balance:
        return over.astype(np.int32)
    k = max(int(over.sum()) // case.classes, 1) if case.k == "auto" else int(case.k)
    copies = np.zeros(len(ids), np.int32)
    for label in range(case.classes):
        members = [int(row) for row in np.flatnonzero(over & (labels == label))]
        kept = sorted(members, key=lambda row: (-confidence[row], ids[row]))[:k]
        for place, row in enumerate(sorted(kept, key=lambda row: (passes.draw(ids[[row]], case.seed)[0], ids[row]))):
            copies[row] = k // len(kept) + (place < k % len(kept))
    return copies


def whole(case: Case) -> list[np.ndarray]:
    return [np.arange(len(case.rows[0]))]
