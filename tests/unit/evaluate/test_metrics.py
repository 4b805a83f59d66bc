import numpy as np
import pytest

from ray_ns.evaluate.figures import Judged, figures
from ray_ns.evaluate.metrics import calibration_error, metrics, of_probabilities


def test_figures_of_a_small_case_are_those_computed_by_hand() -> None:
    predicted = np.array([0, 1, 1, 2, 0, 2])
    truth = np.array([0, 1, 0, 2, 0, 1])
    confidence = np.array([0.9, 0.8, 0.6, 0.9, 0.5, 0.4])
    found = metrics(predicted, confidence, truth, 4)
    assert (found["images"], found["unreadable"]) == (6, 0)
    assert found["top1"] == pytest.approx(4 / 6)
    assert found["top1_per_class"] == [0.666667, 0.5, 1.0, None]
    # bins of 1/15: .9 .9 | .8 | .6 | .5 | .4, of which .6 and .4 are wrong
    assert found["calibration_error"] == pytest.approx((2 * 0.1 + 0.2 + 0.6 + 0.5 + 0.4) / 6)


def test_an_unreadable_image_counts_as_wrong() -> None:
    found = metrics(np.array([0, -1, 1, -1]), np.array([1.0, 0.0, 1.0, 0.0]), np.array([0, 0, 1, 1]), 2)
    assert found["unreadable"] == 2
    assert found["top1"] == 0.5
    assert found["top1_per_class"] == [0.5, 0.5]
    assert found["calibration_error"] == 0.0


def test_within_a_bin_over_and_under_confidence_cancel() -> None:
    assert calibration_error(np.array([0.75, 0.75, 0.75, 0.75]), np.array([1, 1, 1, 0], bool)) == pytest.approx(0)


def test_in_different_bins_they_do_not() -> None:
    assert calibration_error(np.array([0.9, 0.1]), np.array([False, True])) == pytest.approx(0.9)


@pytest.mark.parametrize("bins", [10, 15, 20])
def test_it_is_the_papers_sum_over_bins(rng: np.random.Generator, bins: int) -> None:
    confidence, right = rng.random(3000) ** 0.5, rng.random(3000) < 0.7
    total = 0.0
    for number in range(bins):
        inside = [at for at in range(3000) if number / bins < confidence[at] <= (number + 1) / bins]
        accuracy = sum(bool(right[at]) for at in inside) / len(inside)
        total += len(inside) / 3000 * abs(accuracy - sum(confidence[at] for at in inside) / len(inside))
    assert calibration_error(confidence, right, bins) == pytest.approx(total, rel=1e-9)


@pytest.mark.parametrize("confidence", [0.0, 1.0])
def test_the_ends_of_the_range_have_a_bin(confidence: float) -> None:
    right = np.array([True, False])
    assert calibration_error(np.full(2, confidence), right) == pytest.approx(0.5)


def test_a_calibrated_classifier_has_a_small_error(rng: np.random.Generator) -> None:
    confidence = rng.random(100_000)
    assert calibration_error(confidence, rng.random(100_000) < confidence) < 0.01
    assert calibration_error(confidence, rng.random(100_000) < confidence / 2) > 0.2


def test_figures_are_json_values() -> None:
    found = metrics(np.array([0]), np.array([0.5], np.float32), np.array([0]), 2)
    assert {type(value) for value in found.values()} == {int, float, list}
    assert {type(share) for share in found["top1_per_class"]} == {float, type(None)}


def test_top5_and_nll_are_of_the_probabilities() -> None:
    top = np.array([[0, 1, 2, 3, 4], [5, 1, 2, 3, 4], [0, 1, 2, 3, 4], [-1] * 5])
    loss = np.array([0.1, 0.5, 3.0, np.nan])
    found = of_probabilities(loss, top, np.array([0, 3, 5, 1]), 6)
    assert found == {"nll": pytest.approx(1.2), "top5": 0.5}
    assert of_probabilities(loss, top, np.array([0, 3, 2, 1]), 5) == {"nll": pytest.approx(1.2)}
    empty = of_probabilities(np.zeros(0), np.zeros((0, 5), int), np.zeros(0, int), 6)
    assert empty == {"nll": None, "top5": None}


def test_of_no_image_nothing_is_measured() -> None:
    found = metrics(np.zeros(0, int), np.zeros(0), np.zeros(0, int), 2)
    assert (found["images"], found["top1"], found["calibration_error"]) == (0, None, None)
    assert found["top1_per_class"] == [None, None]


def test_it_is_the_rule_of_an_evaluation(rng: np.random.Generator) -> None:
    """The same images have the same figures in a run and by ``ray-ns evaluate``: unreadable ones, absent classes."""
    for unreadable in (0.0, 0.3, 1.0):
        truth, label = rng.choice([0, 1, 3, 6], 40), rng.integers(0, 7, 40)
        label = np.where(rng.random(40) < unreadable, -1, label)
        confidence = np.where(label < 0, 0, rng.random(40))
        found = metrics(label, confidence, truth, 7)
        other = figures(Judged(truth, label, confidence, np.ones(40), label[:, None]), 7)
        assert found["top1_per_class"] == other["top1_per_class"]
        assert found["top1"] == pytest.approx(other["top1"], abs=1e-6)
        assert (found["images"], found["unreadable"]) == (other["images"], other["unreadable"])
        if unreadable == 1:
            assert found["calibration_error"] is None is other["calibration_error"]
        else:
            assert found["calibration_error"] == pytest.approx(other["calibration_error"], abs=1e-5)


def test_runs_up_to_format_3_keep_their_own() -> None:
    label, confidence = np.array([0] * 5 + [-1] * 5), np.array([0.5] * 5 + [0.0] * 5)
    then = metrics(label, confidence, np.zeros(10, int), 2, early=True)
    now = metrics(label, confidence, np.zeros(10, int), 2)
    assert (then["calibration_error"], then["top1_per_class"]) == (0.25, [0.5, 0.0])
    assert (now["calibration_error"], now["top1_per_class"]) == (0.5, [0.5, None])
