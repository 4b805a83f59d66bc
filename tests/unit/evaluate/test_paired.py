"""Paired proportions against published and hand-computed numbers."""

import numpy as np
import pytest

from ray_ns.evaluate.paired import mcnemar, paired


def rights(both: int, one: int, other: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    first = [True] * (both + one) + [False] * (other + neither)
    second = [True] * both + [False] * one + [True] * other + [False] * neither
    return np.array(first), np.array(second)


def test_the_interval_is_the_published_one() -> None:
    found = paired(*rights(1, 1, 7, 12))  # Bentur et al. 2009, in Fagerland et al. 2014
    assert (found.only_first, found.only_second, found.images) == (1, 7, 21)
    assert found.difference == pytest.approx(-6 / 21)
    assert (found.low, found.high) == pytest.approx((-0.507, -0.026), abs=0.01)


@pytest.mark.parametrize(("one", "other", "p"), [(0, 0, 1.0), (1, 7, 18 / 256), (7, 1, 18 / 256), (3, 3, 1.0)])
def test_mcnemar_by_hand(one: int, other: int, p: float) -> None:
    assert mcnemar(one, other) == pytest.approx(p)


def test_equal_networks_do_not_differ() -> None:
    found = paired(*rights(60, 0, 0, 40))
    assert (found.difference, found.p) == (0.0, 1.0)
    assert found.low <= 0 <= found.high


def test_swapping_the_networks_turns_the_signs() -> None:
    one, other = paired(*rights(59, 6, 16, 80)), paired(*rights(59, 16, 6, 80))
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))
    assert one.p == other.p


def test_what_has_other_lengths_is_refused() -> None:
    with pytest.raises(ValueError, match="3 and 2 images"):
        paired(np.ones(3, bool), np.ones(2, bool))


def test_fifty_thousand_images_are_no_matter() -> None:
    assert mcnemar(20_000, 30_000) == pytest.approx(0.0, abs=1e-300)
