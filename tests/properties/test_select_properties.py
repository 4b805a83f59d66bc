from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_ns.config import Select
from ray_ns.errors import IntegrityError
from ray_ns.labels.selection import rules as select

Rows = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Case:
    rows: Rows
    classes: int
    threshold: float
    k: int | str
    balance: bool
    seed: int

    @property
    def terms(self) -> select.Terms:
        settings = Select(threshold=self.threshold, per_class=self.k, balance=self.balance)
        return select.terms(settings, self.classes, self.seed)


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


def passes(rows: Rows, shards: list[np.ndarray], asked: select.Terms) -> tuple[np.ndarray, select.Quotas]:
    """Copies of every row, selected in three passes over ``shards`` (row numbers), and the quotas."""
    parts = [tuple(column[shard] for column in rows) for shard in shards]
    counts = []
    for _, labels, confidence in parts:
        tally = select.Tally(asked)
        tally.add(labels, confidence)
        counts.append(tally.counts())
    quota = select.quotas(sum(counts), asked)
    near, ends = quota, select.bounds(quota, asked)
    if select.crowded(quota).any():
        found = [select.ties(*part, quota) for part in parts]
        near, ends = select.narrowed(quota, ends, [it for it in found if it is not None])
    copies = np.zeros(len(rows[0]), np.int32)
    below = np.zeros(asked.classes, np.int64)
    open_rows = []
    for shard, part in zip(shards, parts, strict=True):
        made = select.split(*part, ends, asked.seed)
        copies[shard[made.rows]] = made.copies
        np.testing.assert_array_equal(made.images, np.bincount(part[1][made.rows], minlength=asked.classes))
        times = np.bincount(part[1][made.rows], made.copies, minlength=asked.classes)
        np.testing.assert_array_equal(made.images * ends.copies + made.below, times)
        below += made.below
        open_rows.append(shard[made.undecided])
    at = np.concatenate(open_rows)
    assert not copies[at].any()
    at = at[select.contenders(*(column[at] for column in rows), near)]
    times, reaches = select.settle(*(column[at] for column in rows), below, near, asked)
    chosen = np.flatnonzero(times)
    times = times[chosen]
    copies[at[chosen]] = times
    for label in range(asked.classes):
        mine = (rows[1] == label) & (copies > 0)
        lowest = rows[2][mine].min() if mine.any() else np.nan
        if asked.rule == "paper" and quota.edge[label] >= 0:
            assert reaches[label] == lowest
        else:
            assert not lowest < reaches[label]
    return copies, quota


def by_shards(case: Case, shards: list[np.ndarray]) -> tuple[np.ndarray, select.Quotas]:
    return passes(case.rows, shards, case.terms)


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
        for place, row in enumerate(sorted(kept, key=lambda row: (select.draw(ids[[row]], case.seed)[0], ids[row]))):
            copies[row] = k // len(kept) + (place < k % len(kept))
    return copies


def whole(case: Case) -> list[np.ndarray]:
    return [np.arange(len(case.rows[0]))]


@given(cases())
def test_selection_is_what_sorting_every_class_gives(case: Case) -> None:
    np.testing.assert_array_equal(by_shards(case, whole(case))[0], by_sorting(case))


@given(cases(), st.integers(1, 7), st.randoms(use_true_random=False))
def test_selection_does_not_depend_on_shards_or_their_order(case: Case, shards: int, draw: object) -> None:
    order = np.arange(len(case.rows[0]))
    draw.shuffle(order)  # type: ignore[attr-defined]
    parts = np.array_split(order, shards)
    copies, quota = by_shards(case, parts)
    same, quota_of_whole = by_shards(case, whole(case))
    np.testing.assert_array_equal(copies, same)
    for name, values in vars(quota).items():
        np.testing.assert_array_equal(values, getattr(quota_of_whole, name), err_msg=name)


@given(cases())
def test_totals_are_exact_and_nothing_is_lost_or_made_up(case: Case) -> None:
    _, labels, confidence = case.rows
    copies, quota = by_shards(case, whole(case))
    over = confidence >= np.float32(case.threshold)
    used = copies > 0
    for label in range(case.classes):
        mine = labels == label
        assert quota.candidates[label] == mine.sum()
        assert quota.over[label] == (mine & over).sum()
        assert quota.kept[label] == (mine & used).sum()
        assert quota.totals[label] == copies[mine].sum()
        if case.balance and (mine & over).any():
            k = max(int(over.sum()) // case.classes, 1) if case.k == "auto" else case.k
            assert copies[mine].sum() == k
            assert np.ptp(copies[mine & used]) <= 1
    assert not (used & ~over).any()
    # kept and dropped are all the candidates
    assert used.sum() + (~used).sum() == quota.candidates.sum() == len(labels)
    if not case.balance:
        assert (copies == over).all()


@given(cases())
def test_no_dropped_image_is_more_confident_than_a_kept_one_of_its_class(case: Case) -> None:
    ids, labels, confidence = case.rows
    copies, _ = by_shards(case, whole(case))
    over = confidence >= np.float32(case.threshold)
    for label in range(case.classes):
        kept, dropped = (np.flatnonzero((labels == label) & over & ((copies > 0) == used)) for used in (True, False))
        if len(kept) and len(dropped):
            assert max((-confidence[i], ids[i]) for i in kept) < min((-confidence[i], ids[i]) for i in dropped)


@pytest.mark.parametrize("seed", range(3))
def test_hundred_thousand_rows_with_ties_equal_sorting(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = 100_000
    labels = np.minimum(rng.geometric(0.3, count) - 1, 9).astype(np.int16)
    confidence = np.round(rng.beta(3, 1, count), 3).astype(np.float32)
    case = Case((rng.permutation(count).astype(np.int64), labels, confidence), 10, 0.3, "auto", True, seed)
    copies, _ = by_shards(case, np.array_split(np.arange(count), 13))
    np.testing.assert_array_equal(copies, by_sorting(case))


@st.composite
def asked(draw: st.DrawFn, case: Case, rule: str) -> select.Terms:
    """Terms of ``rule`` with thresholds and quotas of some classes' own."""
    label = st.integers(0, case.classes - 1)
    settings = Select(
        rule=rule,
        threshold=round(case.threshold, 2),  # the grid of the official rule
        thresholds=draw(st.dictionaries(label, st.sampled_from([0.0, 0.05, 0.3, 0.58, 1.0]), max_size=3)),
        per_class=case.k,
        quotas=draw(st.dictionaries(label, st.integers(0, 50), max_size=3)),
    )
    return select.terms(settings, case.classes, case.seed)


@given(st.data(), cases())
def test_thresholds_and_quotas_of_single_classes_hold_exactly(data: st.DataObject, case: Case) -> None:
    terms = data.draw(asked(case, "paper"))
    copies, quota = passes(case.rows, np.array_split(np.arange(len(case.rows[0])), 3), terms)
    _, labels, confidence = case.rows
    over = confidence >= terms.threshold[labels]
    assert not (copies[~over]).any()
    auto = max(int(over.sum()) // case.classes, 1)
    for label in range(case.classes):
        k = auto if terms.wanted[label] == select.AUTO else terms.wanted[label]
        mine = over & (labels == label)
        assert copies[mine].sum() == (k if mine.any() else 0) == quota.totals[label]
        assert (copies[mine] > 0).sum() == min(k, mine.sum()) == quota.kept[label]


@given(st.data(), cases(), st.integers(1, 7), st.randoms(use_true_random=False))
def test_the_official_rule_is_the_released_one(data: st.DataObject, case: Case, shards: int, draw: object) -> None:
    terms = data.draw(asked(case, "official"))
    order = np.arange(len(case.rows[0]))
    draw.shuffle(order)  # type: ignore[attr-defined]
    copies, quota = passes(case.rows, np.array_split(order, shards), terms)
    ids, labels, confidence = case.rows
    over = confidence >= terms.threshold[labels]
    auto = max(int(over.sum()) // case.classes, 1)
    for label in range(case.classes):
        k = int(auto if terms.wanted[label] == select.AUTO else terms.wanted[label])
        mine = np.flatnonzero(labels == label)
        assert quota.candidates[label] == len(mine)
        lowest = round(100 * float(terms.threshold[label]))
        grid = [np.float32(step / 100) for step in range(100, lowest - 1, -1)]
        cut = next((step for step in grid if (confidence[mine] >= step).sum() >= k), grid[-1])
        kept = mine[confidence[mine] >= cut]
        assert not copies[np.setdiff1d(mine, kept)].any()
        if len(kept):
            ratio = k / len(kept)
            coins = select.draw(ids[kept], case.seed) / 2**64 <= ratio - int(ratio)
            np.testing.assert_array_equal(copies[kept], int(ratio) + coins if k else 0)


@given(cases(), st.integers(1, 5))
def test_an_earlier_selection_is_carried_to_the_same_images(case: Case, step: int) -> None:
    ids = case.rows[0]
    copies, _ = by_shards(case, whole(case))
    chosen = np.flatnonzero(copies)
    again = ids[::step]
    rows, times = select.carry(again, ids[chosen], copies[chosen])
    np.testing.assert_array_equal(again[rows], np.intersect1d(again, ids[chosen]))
    assert (
        dict(zip(again[rows].tolist(), times.tolist(), strict=True)).items()
        <= dict(zip(ids.tolist(), copies.tolist(), strict=True)).items()
    )


@given(cases(), st.integers(0, 9))
def test_churn_counts_every_image_labelled_both_times(case: Case, seed: int) -> None:
    ids, before, _ = case.rows
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(ids))[: len(ids) // 2]
    now = rng.integers(0, case.classes, len(rows)).astype(np.int16)
    compared, left, arrived = select.churn(ids[rows], now, ids, before, case.classes)
    np.testing.assert_array_equal(compared, np.bincount(before[rows], minlength=case.classes))
    for label in range(case.classes):
        assert left[label] == ((before[rows] == label) & (now != label)).sum()
        assert arrived[label] == ((before[rows] != label) & (now == label)).sum()


def test_draws_that_are_not_spread_evenly_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    count = 10_000
    rows = np.arange(count), np.zeros(count, np.int16), np.full(count, 0.5, np.float32)
    case = Case(rows, 1, 0.0, count + count // 2, True, 0)
    assert by_shards(case, whole(case))[0].sum() == count + count // 2
    for value in (0, 2**64 - 1):
        monkeypatch.setattr(select, "draw", lambda ids, seed, value=value: np.full(len(ids), value, np.uint64))
        with pytest.raises(IntegrityError, match=r"class 0.*run\.seed"):
            by_shards(case, whole(case))


@pytest.mark.parametrize("extra", [0, 1, 3, 500, 9_500, 9_999])
def test_the_last_drawn_one_lies_in_a_narrow_band(extra: int) -> None:
    kept = 10_000
    counts = np.zeros((1, select.BINS["paper"]), np.int64)
    counts[0, 5] = kept
    asked = select.terms(Select(threshold=0.0, per_class=kept + extra), 1, 0)
    ends = select.bounds(select.quotas(counts, asked), asked)
    draws = np.sort(select.draw(np.arange(kept), 0))
    assert not extra or ends.low[0] <= draws[extra - 1] < ends.high[0]
    assert np.count_nonzero((draws >= ends.low[0]) & (draws < ends.high[0])) < 700


@given(cases())
def test_however_few_edge_rows_are_held_the_selection_is_the_same(case: Case) -> None:
    with pytest.MonkeyPatch().context() as patch:
        patch.setattr(select, "EDGE_ROWS", 0)
        copies, _ = by_shards(case, np.array_split(np.argsort(case.rows[0]), 4))
    np.testing.assert_array_equal(copies, by_sorting(case))


@given(st.lists(st.floats(0, 1, width=32), min_size=2, max_size=200))
def test_bins_never_rise_with_the_confidence(values: list[float]) -> None:
    ordered = np.sort(np.array(values, np.float32))
    for rule in ("paper", "official"):
        terms = select.terms(Select(rule=rule), 1, 0)
        bins = select._bins(np.zeros(len(ordered), np.int64), ordered, terms)
        assert (np.diff(bins) <= 0).all()
        assert bins.min() >= 0
        assert bins.max() < select.BINS[rule]


def test_bins_end_at_every_step_of_the_grid_and_their_floors_are_exact() -> None:
    near = (select.GRID.view(np.int32)[:, None] + np.arange(-3, 4)).clip(0, select.ONE).astype(np.int32)
    spread = np.random.default_rng(0).integers(0, select.ONE + 1, 100_000).astype(np.int32)
    values = np.sort(np.concatenate([near.ravel(), spread])).view(np.float32)
    np.testing.assert_array_equal(select._steps(values), 101 - select.GRID.searchsorted(values, "right"))
    bins = select._base(values)
    assert (np.diff(bins)[np.diff(select._steps(values)) < 0] < 0).all()
    floors = select._floors()
    assert (floors[bins] <= values).all()
    assert (values < np.append(np.float32(2), floors)[bins]).all()
