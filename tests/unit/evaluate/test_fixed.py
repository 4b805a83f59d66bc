"""What is said of FixRes: figures of each look, paired differences, and which network goes on."""

import numpy as np
import pytest

from ray_ns.evaluate import fixed
from ray_ns.evaluate.fixed import BEFORE, CONTROL, SHIFTED, SHIFTS, TEST, TUNED, UNTUNED, VALIDATION
from ray_ns.evaluate.verdict import verdict

SIZES = {BEFORE: 20, UNTUNED: 28, TUNED: 28, CONTROL: 20}


def right(share: float, images: int = 200, shifted: float = 0.5) -> dict[str, np.ndarray]:
    """One look: the first ``share`` of its images are right, clean; ``shifted`` of them in every shift."""
    clean = np.arange(images) < share * images
    return {VALIDATION: clean, TEST: clean} | {name: np.arange(images) < shifted * images for name in SHIFTS}


def outcome(before: float, tuned: float, images: int = 200, **looks: float) -> dict:
    named = {BEFORE: right(before, images), UNTUNED: right(0.3, images), TUNED: right(tuned, images)}
    named |= {look: right(share, images) for look, share in looks.items()}
    return fixed.outcome(named, SIZES)


@pytest.mark.parametrize(
    ("before", "tuned", "images", "goes_on"),
    [
        (0.8, 0.9, 200, TUNED),
        (0.8, 0.8, 200, TUNED),
        (0.8, 0.795, 200, TUNED),  # one image less: it cannot be told from chance
        (0.9, 0.8, 200, BEFORE),
        (0.9, 0.8, 20, TUNED),
        (0.0, 0.0, 0, TUNED),
    ],
)
def test_the_corrected_network_goes_on_unless_validation_shows_that_it_is_worse(
    before: float, tuned: float, images: int, goes_on: str
) -> None:
    found = outcome(before, tuned, images)
    assert found["goes_on"] == goes_on
    assert ("worse on the validation images" in fixed.in_words(found)[-1]) == (goes_on == BEFORE)


def test_test_images_choose_nothing() -> None:
    worse = right(0.8) | {TEST: np.zeros(200, bool)}
    looks = {BEFORE: right(0.8), UNTUNED: right(0.3), TUNED: worse}
    found = fixed.outcome(looks, SIZES)
    assert found["goes_on"] == TUNED
    on = {(it["against"], it["on"]): it["verdict"] for it in found["differences"]}
    assert on[BEFORE, TEST] == "worse"  # and it is said


def test_each_look_has_its_figures_and_each_difference_its_paired_interval() -> None:
    found = outcome(0.7, 0.9, control=0.75)
    assert found["looks"][TUNED] == {"size": 28, VALIDATION: 0.9, TEST: 0.9, SHIFTED: 0.5} | dict.fromkeys(SHIFTS, 0.5)
    on = {(it["against"], it["on"]): it for it in found["differences"]}
    assert set(on) == set(fixed.ASKED)
    pair = verdict(right(0.9)[TEST], right(0.75)[TEST])
    assert on[CONTROL, TEST]["points"] == 15
    assert on[CONTROL, TEST]["interval"] == pytest.approx([pair.low, pair.high], abs=1e-3)
    assert on[CONTROL, TEST]["verdict"] == pair.word == "better"
    assert on[UNTUNED, SHIFTED]["verdict"] == "cannot tell on 200 images"


def test_the_shifted_figure_is_the_mean_of_the_corruptions_of_each_image() -> None:
    tuned = right(0.9) | {SHIFTS[0]: np.ones(200, bool)}
    found = fixed.outcome({BEFORE: right(0.9), UNTUNED: right(0.9), TUNED: tuned}, SIZES)
    assert found["looks"][TUNED][SHIFTED] == pytest.approx((1 + 0.5 * (len(SHIFTS) - 1)) / len(SHIFTS))
    on = {(it["against"], it["on"]): it for it in found["differences"]}
    assert on[BEFORE, SHIFTED]["points"] == pytest.approx(50 / len(SHIFTS))
    assert on[BEFORE, SHIFTED]["verdict"] == "better"


def test_both_sizes_have_the_corruptions_of_the_train_size() -> None:
    views = fixed.views(48)
    assert views[VALIDATION] == (VALIDATION, "clean")
    assert {corpus for corpus, _ in views.values()} == {VALIDATION, TEST}
    assert [views[name] for name in SHIFTS] == [(TEST, f"corrupt:cifar-1:{name}:3") for name in SHIFTS]


def test_of_no_image_nothing_is_measured_and_that_is_said() -> None:
    """A run may hold out none: 0.0 % would be a figure, and the worst one."""
    nothing = {name: np.zeros(0, bool) for name in fixed.SEEN}
    some = right(0.8)
    without = {VALIDATION: (VALIDATION,), TEST: (TEST, SHIFTED, *SHIFTS), "both": (*fixed.ON, *SHIFTS)}
    for corpus, unknown in without.items():
        seen = {name: nothing[name] if name in unknown else some[name] for name in fixed.SEEN}
        found = fixed.outcome(dict.fromkeys(SIZES, seen), SIZES)
        for look in found["looks"].values():
            assert {name for name, it in look.items() if it is None} == {*unknown}, corpus
        assert {it["points"] for it in found["differences"] if it["on"] in unknown} == {None}
        told = "\n".join(fixed.in_words(found))
        assert " 0.0%" not in told
        assert "+0.0 points (95 %: -100.0" not in told
        assert ("not measured on validation" in told) is (VALIDATION in unknown)
        assert ("validation: not measured" in told) is (VALIDATION in unknown)
        assert ("not measured shifted (gaussian_noise not measured" in told) is (TEST in unknown)


def test_what_an_earlier_version_committed_of_no_image_is_not_measured_either() -> None:
    nothing = {name: np.zeros(0, bool) for name in fixed.SEEN}
    found = fixed.outcome(dict.fromkeys(SIZES, nothing), SIZES)
    for look in found["looks"].values():
        look.update(dict.fromkeys((*fixed.ON, *SHIFTS), 0.0))
    for it in found["differences"]:
        it["points"] = 0.0
    assert "0.0" not in "\n".join(fixed.in_words(found))
    assert {row[on] for _, row in fixed.in_order(found) for on in (*fixed.ON, *SHIFTS)} == {None}
