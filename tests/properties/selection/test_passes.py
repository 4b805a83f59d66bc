import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.selection_rows import Case, by_shards, by_sorting, cases, whole

from ray_ns.config import Select
from ray_ns.errors import IntegrityError
from ray_ns.labels.selection import bins, passes, rules, terms


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


def test_draws_that_are_not_spread_evenly_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    count = 10_000
    rows = np.arange(count), np.zeros(count, np.int16), np.full(count, 0.5, np.float32)
    case = Case(rows, 1, 0.0, count + count // 2, True, 0)
    assert by_shards(case, whole(case))[0].sum() == count + count // 2
    for value in (0, 2**64 - 1):
        monkeypatch.setattr(passes, "draw", lambda ids, seed, value=value: np.full(len(ids), value, np.uint64))
        with pytest.raises(IntegrityError, match=r"class 0.*run\.seed"):
            by_shards(case, whole(case))


@pytest.mark.parametrize("extra", [0, 1, 3, 500, 9_500, 9_999])
def test_the_last_drawn_one_lies_in_a_narrow_band(extra: int) -> None:
    kept = 10_000
    counts = np.zeros((1, bins.BINS["paper"]), np.int64)
    counts[0, 5] = kept
    asked = terms.of_settings(Select(threshold=0.0, per_class=kept + extra), 1, 0)
    ends = passes.bounds(rules.quotas(counts, asked), asked)
    draws = np.sort(passes.draw(np.arange(kept), 0))
    assert not extra or ends.low[0] <= draws[extra - 1] < ends.high[0]
    assert np.count_nonzero((draws >= ends.low[0]) & (draws < ends.high[0])) < 700
