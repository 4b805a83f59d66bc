import numpy as np
import pytest
from support.selection_rows import chosen

from ray_ns.config import Select
from ray_ns.labels.selection import passes, rules, terms

K = 4


def test_the_threshold_itself_is_kept_and_what_is_below_is_not() -> None:
    below = float(np.nextafter(np.float32(0.3), np.float32(0)))
    copies, quota = chosen([0, 0, 0], [0.3, below, 0.9], 1, 0.3, 2)
    assert copies == [1, 0, 1]
    assert (quota.candidates.tolist(), quota.over.tolist()) == ([3], [2])


@pytest.mark.parametrize(("images", "k"), [(1, 5), (2, 5), (3, 7), (5, 5), (4, 100)])
def test_a_scarce_class_is_duplicated_evenly_to_k(images: int, k: int) -> None:
    copies, quota = chosen([0] * images, [0.9] * images, 1, 0.0, k)
    assert sum(copies) == k == quota.totals[0]
    assert max(copies) - min(copies) <= 1


def test_a_class_without_images_gives_none() -> None:
    copies, quota = chosen([0, 0, 2], [0.9, 0.8, 0.1], 3, 0.3, K)
    assert copies == [2, 2, 0]
    assert quota.totals.tolist() == [K, 0, 0]


def test_auto_is_the_images_over_the_threshold_by_classes() -> None:
    copies, quota = chosen([0] * 5 + [1] * 3, [0.9] * 5 + [0.9, 0.9, 0.1], 2, 0.3, "auto")
    assert quota.totals.tolist() == [3, 3]
    assert copies[:5] == [1, 1, 1, 0, 0]
    assert sorted(copies[5:7]) == [1, 2]


def test_auto_is_one_at_least() -> None:
    assert chosen([1], [0.9], 5, 0.0, "auto")[1].totals.tolist() == [0, 1, 0, 0, 0]


def test_without_balance_everything_over_the_threshold_is_used_once() -> None:
    copies, quota = chosen([0, 0, 0, 1], [0.9, 0.5, 0.1, 0.4], 2, 0.3, 1, balance=False)
    assert copies == [1, 1, 0, 1]
    assert quota.totals.tolist() == quota.kept.tolist() == [2, 1]


def test_nothing_over_the_threshold_selects_nothing() -> None:
    copies, quota = chosen([0, 1], [0.1, 0.2], 2, 0.9, "auto")
    assert copies == [0, 0]
    assert not quota.totals.any()


def test_quantiles_are_right_to_within_a_bin() -> None:
    rng = np.random.default_rng(0)
    for rule in ("paper", "official"):
        confidence = rng.beta(2, 1, 20_000).astype(np.float32)
        tally = passes.Tally(terms.of_settings(Select(rule=rule), 2, 0))
        tally.add(np.zeros(len(confidence), np.int16), confidence)
        found = rules.quotas(tally.counts(), terms.of_settings(Select(rule=rule), 2, 0)).quantiles
        np.testing.assert_allclose(found[0], np.quantile(confidence, rules.QUANTILES), atol=0.03)
        assert np.isnan(found[1]).all()


def test_a_quota_of_zero_leaves_the_class_out() -> None:
    copies, quota = chosen([0, 0, 1], [0.9, 0.8, 0.7], 2, 0.3, 2, quotas={0: 0})
    assert copies == [0, 0, 2]
    assert quota.over.tolist() == [2, 1]
