"""Figures on a few rows, against values worked out by hand."""

import math

import numpy as np
import pytest

from ray_ns.evaluate.figures import BINS, Judged, figures, mean, reliability, stacked, student
from ray_ns.evaluate.intervals import wilson
from ray_ns.evaluate.kinds import KINDS, difference
from ray_ns.evaluate.suites import AMONG, Suite, among


def judged() -> Judged:
    """Five images of six classes; the last one cannot be read."""
    top = [[0, 1, 2, 3, 4], [1, 0, 2, 3, 4], [5, 4, 3, 2, 0], [2, 1, 0, 3, 4], [-1] * 5]
    truth, confidence = [0, 0, 1, 2, 2], [0.95, 0.6, 0.5, 0.98, 0]
    return Judged(
        np.array(truth),
        np.array([row[0] for row in top]),
        np.array(confidence),
        np.array([0.05, 1.2, 4.0, 0.02, 0]),
        np.array(top),
    )


def test_shares_with_their_intervals() -> None:
    found = figures(judged(), 6)
    assert (found["images"], found["unreadable"], found["top1"], found["top5"]) == (5, 1, 0.4, 0.6)
    assert found["top1_interval"] == pytest.approx(wilson(0.4, 5), abs=1e-6)
    assert found["nll"] == pytest.approx((0.05 + 1.2 + 4.0 + 0.02) / 4)
    assert found["top1_per_class"] == [0.5, 0.0, 0.5, None, None, None]
    assert found["images_per_class"] == [2, 1, 2, 0, 0, 0]
    assert found["confusion"][0] == [1, 1, 0, 0, 0, 0]
    assert found["confused"] == [[0, 1, 1], [1, 5, 1]]
    assert figures(judged(), 101)["confusion"] is None


def test_calibration_is_of_the_images_that_can_be_read() -> None:
    found = figures(judged(), 6)
    # 0.95 and 0.98 share the bin from 14/15 on; both are right
    assert [row["images"] for row in found["reliability"]] == [1, 1, 2]
    assert found["calibration_error"] == pytest.approx((0.5 + 0.6 + 2 * (1 - 0.965)) / 4, abs=1e-6)
    assert found["calibration_error_interval"] is None, "four images are too few"
    twice = stacked([judged(), judged()])
    low, high = figures(twice, 6)["calibration_error_interval"]
    assert low < found["calibration_error"] == figures(twice, 6)["calibration_error"] < high
    assert (
        figures(Judged(*(it[4:] for it in vars(judged()).values() if it is not None)), 6)["calibration_error"] is None
    )


def test_a_calibrated_network_has_no_error_and_the_last_bin_holds_one() -> None:
    confidence = np.repeat([0.25, 0.75, 1.0], 400)
    right = np.concatenate([np.arange(400) < 100, np.arange(400) < 300, np.full(400, True)])
    table = reliability(confidence, right)
    assert [row["top1"] for row in table] == [0.25, 0.75, 1.0]
    assert table[-1]["from"] == pytest.approx((BINS - 1) / BINS, abs=1e-6)


def test_the_mean_of_many_views_is_of_images() -> None:
    found = mean(np.array([0.0, 0.5, 1.0, 0.5, 0.5]))
    half = 2.776 * math.sqrt(0.5 / 4 / 5)  # Student's, of 4 degrees of freedom
    assert found["value"] == 0.5
    assert found["interval"] == pytest.approx([0.5 - half, 0.5 + half], abs=2e-3)
    assert mean(np.array([0.9, 1.0, 1.0, 1.0, 0.8]))["interval"][1] == 1.0


def test_few_images_or_equal_values_are_no_certainty() -> None:
    assert mean(np.array([0.2, 0.3, 0.2, 0.3]))["interval"] is None
    assert mean(np.zeros(20))["interval"] == pytest.approx(wilson(0.0, 20), abs=1e-6)
    for images in (2, 12):
        found = difference(np.full(images, 0.3), np.full(images, 0.2), True)
        assert found["verdict"] == f"cannot tell on {images} images"


def test_students_quantile_is_the_tables() -> None:
    for freedom, quantile in ((4, 2.7764), (10, 2.2281), (30, 2.0423), (1000, 1.9623)):
        assert student(freedom) == pytest.approx(quantile, abs=0.01)


def test_a_difference_says_better_only_where_its_interval_holds_it() -> None:
    right = np.arange(100) < 90
    few = difference(right[:8], ~right[:8] | (np.arange(8) < 7), True)
    assert few["verdict"] == "cannot tell on 8 images"
    assert difference(right, np.arange(100) < 60, True)["verdict"] == "better"
    assert difference(np.arange(100) < 60, right, True)["verdict"] == "worse"
    flips = difference(np.full(50, 0.1) + np.arange(50) / 1e4, np.full(50, 0.4), False)
    assert flips["verdict"] == "better"
    assert flips["points"] == pytest.approx(-29.755, abs=1e-6)
    assert stacked([judged(), judged()]).right.sum() == 4


def test_of_no_image_nothing_is_measured() -> None:
    found = figures(Judged(*(it[:0] for it in vars(judged()).values() if it is not None)), 6)
    unknown = ("top1", "top1_interval", "top5", "top5_interval", "calibration_error", "calibration_error_interval")
    assert {found[name] for name in (*unknown, "nll")} == {None}
    assert found["top1_per_class"] == [None] * 6
    assert mean(np.zeros(0)) == {"value": None, "interval": None}
    for values in (np.zeros(0), np.zeros(0, bool)):
        nothing = difference(values, values, True)
        assert (nothing["points"], nothing["verdict"]) == (None, "cannot tell on 0 images")


@pytest.mark.parametrize(("allowed", "measured"), [(None, True), (6, True), (5, False), (2, False)])
def test_five_of_five_is_no_top5(allowed: int | None, measured: bool) -> None:
    """A network that may say five classes has the true one among its five most probable ones."""
    found = figures(judged(), 1000, allowed)
    assert (found["top5"] is not None) is measured
    assert (found.get("top5_interval") is not None) is measured


@pytest.mark.parametrize("classes", [2, 5, 6, 7])
def test_among_some_classes_they_are_those_that_count(classes: int) -> None:
    allowed = np.arange(1000) < classes
    (view,) = among(Suite("among@x", AMONG, "x", (AMONG,)), allowed).views
    found = KINDS[AMONG].figures({view: judged()}, 1000, None)
    assert (found["top5"] is not None) is (classes > 5)
    assert len(found["top1_per_class"]) == 1000
    assert KINDS["clean"].figures({"clean": judged()}, 1000, None)["top5"] is not None
