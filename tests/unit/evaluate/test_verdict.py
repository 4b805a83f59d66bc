"""What a difference allows to say: the word follows the interval, and a difference too small to show is told of."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_ns.evaluate.paired import paired
from ray_ns.evaluate.verdict import ENOUGH, FEWEST, foretold, foretold_in_words, unpaired, verdict


def rights(both: int, first: int, second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """Which images two networks have right, from how many both, one alone, and neither have."""
    of = [(True, True)] * both + [(True, False)] * first + [(False, True)] * second + [(False, False)] * neither
    one, other = np.array(of, bool).T
    return one, other


COUNTS = st.tuples(*[st.integers(0, 300)] * 4).filter(any)


@given(COUNTS)
def test_the_word_never_claims_what_the_interval_does_not_hold(counts: tuple[int, int, int, int]) -> None:
    first, second = rights(*counts)
    found = verdict(first, second)
    assert found.low <= found.points <= found.high
    assert found.points == pytest.approx(100 * (first.mean() - second.mean()), abs=1e-5)
    assert (found.word == "better") == (found.low > 0)
    assert (found.word == "worse") == (found.high < 0)
    back = verdict(second, first)
    assert {found.word, back.word} in ({"better", "worse"}, {"cannot tell"})
    assert (back.points, back.low, back.high) == pytest.approx((-found.points, -found.high, -found.low), abs=1e-5)


@given(COUNTS)
def test_where_nobody_can_tell_the_difference_is_one_that_does_not_show(counts: tuple[int, int, int, int]) -> None:
    found = verdict(*rights(*counts))
    if found.word == "cannot tell":
        assert abs(found.points) <= found.visible
        assert f"less than {found.visible:.1f} points does not show" in found.in_words


def test_a_tie_on_twenty_images_is_no_finding() -> None:
    found = verdict(*rights(14, 1, 1, 4))
    assert (found.points, found.word) == (0.0, "cannot tell")
    assert found.visible >= 100 * FEWEST / 20
    assert found.in_words.startswith("+0.0 points on 20 images (95 %: ")


def test_a_small_gain_on_many_images_is_found() -> None:
    assert verdict(*rights(4000, 300, 200, 500)).word == "better"
    assert verdict(*rights(4000, 200, 300, 500)).in_words.endswith("): worse")


@pytest.mark.parametrize("alone", range(FEWEST + 2))
def test_the_fewest_that_may_be_more_than_chance(alone: int) -> None:
    assert (paired(*rights(10, alone, 0, 10)).p < 0.05) == (alone >= FEWEST)


def test_without_predictions_the_interval_is_wider_and_says_why() -> None:
    first, second = rights(150, 16, 4, 30)
    apart, together = unpaired(first.mean(), second.mean(), 200), verdict(first, second)
    assert (together.word, apart.word) == ("better", "cannot tell")
    assert "as if of different images" in apart.in_words
    assert apart.p is None


@pytest.mark.parametrize(
    ("images", "points"), [(1, 100.0), (6, 100.0), (20, 30.0), (100, 6.2), (1000, 2.0), (50_000, 0.3)]
)
def test_what_will_show_is_said_before(images: int, points: float) -> None:
    assert foretold(images) == pytest.approx(points, abs=0.05)
    assert (f"sort {ENOUGH - images:,} more" in foretold_in_words(images)) == (images < ENOUGH)


def test_so_many_are_enough_for_two_points() -> None:
    assert foretold(ENOUGH) <= 2 < foretold(ENOUGH - 1)
    assert "more" not in foretold_in_words(ENOUGH)
