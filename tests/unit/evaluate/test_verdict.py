"""What a difference allows to say: the word follows interval and exact test; one too small to show is told of."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_ns.evaluate.kinds import difference
from ray_ns.evaluate.paired import mcnemar, paired
from ray_ns.evaluate.verdict import (
    BY_CHANCE,
    DISAGREE,
    ENOUGH,
    FEWEST,
    enough,
    foretold,
    foretold_in_words,
    least,
    unpaired,
    verdict,
)


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
    assert found.p is not None
    assert (found.word == "better") == (found.low > 0 and found.p < BY_CHANCE)
    assert (found.word == "worse") == (found.high < 0 and found.p < BY_CHANCE)
    back = verdict(second, first)
    assert {found.word, back.word} in ({"better", "worse"}, {"cannot tell"})
    assert (back.points, back.low, back.high) == pytest.approx((-found.points, -found.high, -found.low), abs=1e-5)


@given(COUNTS)
def test_where_nobody_can_tell_the_difference_is_one_that_does_not_show(counts: tuple[int, int, int, int]) -> None:
    found = verdict(*rights(*counts))
    if found.word == "cannot tell":
        assert abs(found.points) <= found.visible
        assert f"less than {found.visible:.1f} points does not show" in found.in_words


def every(images: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Every way in which two networks can differ on so many images, with none, half and all of the others right."""
    for one in range(images + 1):
        for other in range(images - one + 1):
            rest = images - one - other
            for both in {0, rest // 2, rest} if images <= 20 else {rest // 2}:
                yield rights(both, one, other, rest - both)


@pytest.mark.parametrize("images", [*range(1, 25), 40, 60])
def test_no_word_is_against_its_interval_its_p_or_what_was_foretold(images: int) -> None:
    """By enumeration: runs, evaluations and what is said of shares alone go by one rule."""
    for first, second in every(images):
        found = verdict(first, second)
        apart = unpaired(float(first.mean()), float(second.mean()), images)
        ahead = abs(found.points) >= foretold(images) - 1e-5
        assert found.p is not None
        if found.word == "cannot tell":
            assert found.low <= 0 <= found.high or found.p >= BY_CHANCE
            assert abs(found.points) < found.visible + 1e-5
        else:
            assert found.p < BY_CHANCE
            assert found.low > 0 or found.high < 0
            assert ahead
        assert difference(first, second, True)["verdict"].split(" on ")[0] == found.word
        assert apart.word == "cannot tell" or ahead


@pytest.mark.parametrize("images", [*range(1, 15), 40])
def test_what_a_run_up_to_format_4_has_committed_goes_by_its_interval(images: int) -> None:
    for first, second in every(images):
        found = verdict(first, second, exact=False)
        assert found.word == ("better" if found.low > 0 else "worse" if found.high < 0 else "cannot tell")
        assert found.visible == max(found.points - found.low, found.high - found.points, 100 * FEWEST / images)
        assert vars(found) == vars(verdict(first, second))


@pytest.mark.parametrize(
    ("counts", "word", "old"),
    [
        ((0, 3, 0, 0), "cannot tell", "better"),  # 3 of 3, p 0.25
        ((0, 0, 3, 0), "cannot tell", "worse"),
        ((8, 4, 0, 8), "cannot tell", "better"),  # +20 points on 20 images, where 30 show
        ((50, 5, 0, 45), "cannot tell", "better"),  # p 0.0625
        ((50, 6, 0, 44), "better", "better"),
        ((994, 6, 0, 0), "better", "better"),
    ],
)
def test_an_interval_alone_gives_no_word(counts: tuple[int, int, int, int], word: str, old: str) -> None:
    assert verdict(*rights(*counts)).word == word
    assert verdict(*rights(*counts), exact=False).word == old
    assert difference(*rights(*counts), True)["verdict"].startswith(word)
    assert difference(*rights(*counts), True, exact=False)["verdict"] == old


def test_many_views_of_few_images_give_no_word_either() -> None:
    first = np.array([0.4, 0.5, 0.4, 0.5, 0.4])
    assert difference(first, np.zeros(5), True)["verdict"] == "cannot tell on 5 images"
    assert difference(first, np.zeros(5), True, exact=False)["verdict"] == "better"
    more = np.append(first, 0.5)
    assert difference(more, np.zeros(6), True)["verdict"] == "better"
    assert difference(more, np.zeros(6), False)["verdict"] == "worse"


@pytest.mark.parametrize("apart", range(400))
def test_the_least_lead_is_the_least_of_which_p_is_below(apart: int) -> None:
    ahead = least(apart)
    if apart < FEWEST:
        assert ahead == FEWEST
        return
    assert mcnemar((apart + ahead) // 2, (apart - ahead) // 2) < BY_CHANCE
    assert mcnemar((apart + ahead - 2) // 2, (apart - ahead + 2) // 2) >= BY_CHANCE


@pytest.mark.parametrize("images", [94, 100, 500, 961, 10_000, 50_000])
def test_no_gain_that_is_foretold_as_hidden_gets_a_word_where_networks_disagree_on_a_tenth(images: int) -> None:
    apart = math.ceil(DISAGREE * images)
    for more in range(0, apart, max(1, apart // 5)):
        assert 100 * least(apart + more) / images >= foretold(images) - 1e-9


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
    assert ("; do something to see 2 points" in foretold_in_words(images, "do something")) == (images < ENOUGH)
    assert foretold_in_words(images).endswith("a tenth of the images") == (images > 93)
    assert f"a gain under {100 * min(1, FEWEST / images):.1f} points will not show" in foretold_in_words(images)


def test_so_many_are_enough_for_two_points() -> None:
    assert foretold(ENOUGH) <= 2 < foretold(ENOUGH - 1)
    assert "more" not in foretold_in_words(ENOUGH, "more")
    assert enough(verdict(*rights(18, 1, 1, 0))) == ENOUGH
    assert enough(verdict(*rights(10, 4, 2, 4))) == pytest.approx(3 * ENOUGH, abs=3)
    assert enough(unpaired(0.5, 0.5, 20)) == ENOUGH
