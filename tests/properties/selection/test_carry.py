import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from support.selection_rows import Case, by_shards, cases, whole

from ray_ns.labels.selection import carry


@given(cases(), st.integers(1, 5))
def test_an_earlier_selection_is_carried_to_the_same_images(case: Case, step: int) -> None:
    ids = case.rows[0]
    copies, _ = by_shards(case, whole(case))
    chosen = np.flatnonzero(copies)
    again = ids[::step]
    rows, times = carry.carried_over(again, ids[chosen], copies[chosen])
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
    compared, left, arrived = carry.churn(ids[rows], now, ids, before, case.classes)
    np.testing.assert_array_equal(compared, np.bincount(before[rows], minlength=case.classes))
    for label in range(case.classes):
        assert left[label] == ((before[rows] == label) & (now != label)).sum()
        assert arrived[label] == ((before[rows] != label) & (now == label)).sum()
