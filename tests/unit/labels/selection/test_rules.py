from typing import Any

import numpy as np
import pytest

from ray_ns.config import Select
from ray_ns.labels.selection import rules as select

K = 4


def chosen(
    labels: list[int], confidence: list[float], classes: int, threshold: float, k: int | str, **settings: Any
) -> tuple[list[int], select.Quotas]:
    """Copies of every row when one shard holds them all; ids are the rows' numbers."""
    asked = select.terms(Select(threshold=threshold, per_class=k, **settings), classes, 0)
    rows = np.arange(len(labels)), np.array(labels, np.int16), np.array(confidence, np.float32)
    tally = select.Tally(asked)
    tally.add(*rows[1:])
    quota = select.quotas(tally.counts(), asked)
    copies = np.zeros(len(labels), np.int32)
    used, times = select.of_one_shard(*rows, quota, asked)
    copies[used] = times
    return copies.tolist(), quota


def test_the_most_confident_of_each_class_are_kept() -> None:
    copies, quota = chosen([0, 0, 0, 1, 1, 1], [0.5, 0.9, 0.7, 0.6, 0.4, 0.8], 2, 0.0, 2)
    assert copies == [0, 1, 1, 1, 0, 1]
    assert quota.kept.tolist() == quota.totals.tolist() == [2, 2]


def test_of_equally_confident_ones_the_lowest_id_is_kept() -> None:
    assert chosen([0] * 5, [0.5] * 5, 1, 0.0, 2)[0] == [1, 1, 0, 0, 0]


def test_confidences_that_differ_in_the_last_bit_are_told_apart() -> None:
    half = np.float32(0.5)
    above, far = np.nextafter(half, np.float32(1)), np.nextafter(half, np.float32(0))
    assert chosen([0] * 4, [far, half, above, half], 1, 0.0, 2)[0] == [0, 1, 1, 0]


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


def test_which_images_get_one_copy_more_depends_on_the_seed() -> None:
    ids = np.arange(50)
    assert not np.array_equal(np.argsort(select.draw(ids, 0)), np.argsort(select.draw(ids, 1)))


@pytest.mark.parametrize("wrong", [np.nan, -0.1, 1.1, np.inf, -np.inf])
def test_a_confidence_that_is_none_is_refused_with_its_row(wrong: float) -> None:
    rows = np.zeros(3, np.int16), np.array([0.5, wrong, 0.5], np.float32)
    with pytest.raises(ValueError, match=r"in row 1; expected 0\.\.1"):
        select.Tally(select.terms(Select(), 1, 0)).add(*rows)


@pytest.mark.parametrize("edge", [0.0, 1.0])
def test_confidences_of_zero_and_one_are_counted(edge: float) -> None:
    assert chosen([0], [edge], 1, 0.0, 1)[0] == [1]


@pytest.mark.parametrize("label", [-1, 2])
def test_a_label_that_is_no_class_is_refused_with_its_row(label: int) -> None:
    rows = np.array([0, label, 1], np.int16), np.full(3, 0.5, np.float32)
    with pytest.raises(ValueError, match=r"in row 1; expected 0\.\.1"):
        select.Tally(select.terms(Select(), 2, 0)).add(*rows)


def test_quantiles_are_right_to_within_a_bin() -> None:
    rng = np.random.default_rng(0)
    for rule in ("paper", "official"):
        confidence = rng.beta(2, 1, 20_000).astype(np.float32)
        tally = select.Tally(select.terms(Select(rule=rule), 2, 0))
        tally.add(np.zeros(len(confidence), np.int16), confidence)
        found = select.quotas(tally.counts(), select.terms(Select(rule=rule), 2, 0)).quantiles
        np.testing.assert_allclose(found[0], np.quantile(confidence, select.QUANTILES), atol=0.03)
        assert np.isnan(found[1]).all()


def test_a_quota_of_zero_leaves_the_class_out() -> None:
    copies, quota = chosen([0, 0, 1], [0.9, 0.8, 0.7], 2, 0.3, 2, quotas={0: 0})
    assert copies == [0, 0, 2]
    assert quota.over.tolist() == [2, 1]
