"""A temperature and its figures, against torchmetrics, SciPy and draws whose temperature is known."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from torch.nn.functional import cross_entropy

from ray_ns.evaluate.calibration import FEW, LEAST, MOST, calibration, fit, in_words
from ray_ns.evaluate.figures import BINS


def drawn(images: int, temperature: float, seed: int = 0, classes: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Logits, float32, of a network whose true temperature is this one, and classes drawn by it."""
    rng = np.random.default_rng(seed)
    logits = 4 * rng.standard_normal((images, classes)).astype(np.float32)
    probabilities = torch.softmax(torch.from_numpy(logits) / temperature, 1).numpy().astype(float)
    below = rng.random(images)[:, None] > probabilities.cumsum(1)
    return logits, np.minimum(below.sum(1), classes - 1)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_the_error_and_the_nll_are_those_of_torchmetrics(temperature: float) -> None:
    metrics = pytest.importorskip("torchmetrics.functional.classification")
    logits, truth = drawn(3000, 1.7)
    scaled, classes = torch.from_numpy(logits) / temperature, torch.from_numpy(truth)
    found = calibration(logits, truth, temperature)
    error = metrics.multiclass_calibration_error(scaled.softmax(1), classes, logits.shape[1], n_bins=BINS, norm="l1")
    assert found["calibration_error"] == pytest.approx(float(error), abs=2e-6)
    assert found["nll"] == pytest.approx(float(cross_entropy(scaled, classes)), abs=2e-6)
    assert found["images"] == 3000


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_temperature_is_the_one_with_the_lowest_nll(temperature: float) -> None:
    logits, truth = drawn(2000, temperature)

    def nll(asked: float) -> float:
        return float(cross_entropy(torch.from_numpy(logits.astype(float)) / asked, torch.from_numpy(truth)))

    lowest = minimize_scalar(nll, bounds=(LEAST, MOST), method="bounded", options={"xatol": 1e-8})
    assert fit(logits, truth).temperature == pytest.approx(lowest.x, abs=1e-4)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    found = [fit(*drawn(200, 1.5, seed)) for seed in range(300)]
    held = sum(it.low is not None and it.high is not None and it.low <= 1.5 <= it.high for it in found)
    assert 0.9 <= held / 300 <= 0.99


def test_a_temperature_that_may_as_well_be_1_is_doubted() -> None:
    certain, unsure = fit(*drawn(2000, 3.0)), fit(*drawn(200, 1.0))
    assert certain.doubt is None
    assert unsure.doubt == "200 images do not tell it from 1"
    assert unsure.low is not None
    assert unsure.high is not None
    assert unsure.low < unsure.temperature < unsure.high


def test_too_few_images_give_none() -> None:
    logits, truth = drawn(FEW, 3.0)
    assert fit(logits, truth).low is not None
    few = fit(logits[:-1], truth[:-1])
    assert (few.temperature, few.low) == (1.0, None)
    assert few.doubt == "29 images can be read and 30 are needed, so the logits stay as they are"


def test_a_lowest_nll_at_a_bound_gives_none() -> None:
    logits, _ = drawn(500, 1.0)
    all_right = fit(logits, logits.argmax(1))
    all_wrong = fit(logits, logits.argmin(1))
    assert (all_right.temperature, all_wrong.temperature) == (1.0, 1.0)
    assert "lowest at the bound 0.05" in str(all_right.doubt)
    assert "lowest at the bound 20" in str(all_wrong.doubt)
    sure = fit(1e4 * logits, logits.argmax(1))  # the NLL is 0 everywhere
    assert sure.temperature == 1.0


def test_large_logits_overflow_nothing() -> None:
    logits, truth = drawn(1000, 1.0)
    found = fit(10 * logits + 1e4, truth)
    assert found.temperature == pytest.approx(10, rel=0.15)
    assert np.isfinite(calibration(10 * logits + 1e4, truth, 0.05)["nll"])


def test_no_image_has_no_figure() -> None:
    empty = calibration(np.zeros((0, 3), np.float32), np.zeros(0, int), 2.0)
    assert empty == {"images": 0, "nll": None, "calibration_error": None}


def test_in_words() -> None:
    logits, truth = drawn(1000, 2.0)
    best = fit(logits, truth)
    pair = {"before": calibration(logits, truth, 1.0), "after": calibration(logits, truth, best.temperature)}
    words = in_words({**vars(best), "validation": pair, "test": pair})
    assert words.startswith(f"logits / {best.temperature:.3g} (95 %: {best.low:.3g} to {best.high:.3g}); calibration")
    assert f"{100 * pair['before']['calibration_error']:.1f} -> " in words
    assert words.count("1,000") == 2
