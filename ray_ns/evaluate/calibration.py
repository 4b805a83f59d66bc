"""One temperature for a network's logits, found on labelled images (Guo et al. 2017, section 4.2).

The probabilities are softmax(logits / T). The NLL is convex in 1 / T, so its minimum is the only one, and slope and
curvature there say how far the images fix it. The order of the classes, and so top-1, stays as it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ray_ns.evaluate.figures import BINS
from ray_ns.evaluate.intervals import Z
from ray_ns.evaluate.metrics import calibration_error

LEAST, MOST = 0.05, 20.0  # temperatures that are looked at
FEW = 30  # images, of fewer none is found
DECIMALS = 4  # of a temperature: beyond them lie the last bits of sums, which other hardware has otherwise
UNCALIBRATED = "so the logits stay as they are"


@dataclass(frozen=True)
class Fit:
    """A ``temperature``, the 95 % interval from ``low`` to ``high`` of what it is the estimate of, and what to doubt.

    Where none is found ``temperature`` is 1 and ``low`` and ``high`` are None.
    """

    temperature: float
    low: float | None = None
    high: float | None = None
    doubt: str | None = None


def fit(logits: np.ndarray, truth: np.ndarray) -> Fit:
    """The temperature with the lowest NLL of ``logits``, float (n, classes), of images of the classes ``truth``, (n,).

    The temperature is 1 with a doubt where there are fewer than ``FEW`` images, or where the lowest lies at ``LEAST``
    or ``MOST``: with all images right no temperature is low enough.
    """
    images = len(truth)
    if images < FEW:
        return Fit(1.0, doubt=f"{images} images can be read and {FEW} are needed, {UNCALIBRATED}")
    for bound, beyond in ((LEAST, 1), (MOST, -1)):
        if beyond * _slope(logits, truth, 1 / bound) <= 0:
            return Fit(1.0, doubt=f"the NLL is lowest at the bound {bound:g} of the temperature, {UNCALIBRATED}")
    inverse = _lowest(logits, truth)
    half = Z / (images * max(_curvature(logits, inverse), np.finfo(float).tiny)) ** 0.5
    low = max(LEAST, 1 / (inverse + half))
    high = min(MOST, 1 / (inverse - half)) if inverse - half > 1 / MOST else MOST
    doubt = f"{images} images do not tell it from 1" if low <= 1 <= high else None
    return Fit(round(1 / inverse, DECIMALS), round(low, DECIMALS), round(high, DECIMALS), doubt)


def calibration(logits: np.ndarray, truth: np.ndarray, temperature: float) -> dict[str, Any]:
    """JSON values: how many ``images``, and their ``nll`` and ``calibration_error`` (0..1) at that temperature."""
    if not len(truth):
        return {"images": 0, "nll": None, "calibration_error": None}
    logarithms = _log_probabilities(logits, 1 / temperature)
    confidence, right = np.exp(logarithms.max(1)), logarithms.argmax(1) == truth
    return {
        "images": len(truth),
        "nll": round(float(-logarithms[np.arange(len(truth)), truth].mean()), 6),
        "calibration_error": round(calibration_error(confidence, right, BINS), 6),
    }


def in_words(figures: Mapping[str, Any]) -> str:
    """``logits / 1.83 (95 %: 1.52 to 2.3); calibration error 8.1 -> 3.2 % on 1,000 test images, NLL 0.310 -> 0.280``.

    ``figures``: of a ``Fit``, and by corpus those ``before`` and ``after`` (``calibration``).
    """
    corpora = {name: it for name, it in figures.items() if isinstance(it, Mapping) and it["before"]["images"]}
    sure = f" (95 %: {figures['low']:.3g} to {figures['high']:.3g})" if figures["low"] is not None else ""
    shown = "; ".join(_shown(name, it["before"], it["after"]) for name, it in corpora.items())
    return f"logits / {figures['temperature']:.3g}{sure}; calibration error {shown}"


def _shown(corpus: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    errors = f"{100 * before['calibration_error']:.1f} -> {100 * after['calibration_error']:.1f} %"
    return f"{errors} on {before['images']:,} {corpus} images, NLL {before['nll']:.3f} -> {after['nll']:.3f}"


def _lowest(logits: np.ndarray, truth: np.ndarray) -> float:
    """1 / T at which the mean NLL is lowest."""
    import torch

    z, classes = torch.from_numpy(logits.astype(np.float64)), torch.from_numpy(truth.astype(np.int64))
    inverse = torch.ones((), dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS([inverse], max_iter=200, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def nll() -> float:
        search.zero_grad()
        loss = torch.nn.functional.cross_entropy(inverse * z, classes)
        loss.backward()
        return float(loss.detach())

    search.step(nll)
    return min(max(float(inverse.detach()), 1 / MOST), 1 / LEAST)


def _slope(logits: np.ndarray, truth: np.ndarray, inverse: float) -> float:
    """The NLL's slope in 1 / T: the mean of E[z] - z of the truth."""
    expected = (np.exp(_log_probabilities(logits, inverse)) * logits).sum(1)
    return float((expected - logits[np.arange(len(truth)), truth]).mean())


def _curvature(logits: np.ndarray, inverse: float) -> float:
    """The NLL's second derivative in 1 / T: the mean variance of z."""
    probabilities = np.exp(_log_probabilities(logits, inverse))
    expected = (probabilities * logits).sum(1)
    return float((probabilities * (logits - expected[:, None]) ** 2).sum(1).mean())


def _log_probabilities(logits: np.ndarray, inverse: float) -> np.ndarray:
    scaled = inverse * logits.astype(np.float64)
    scaled -= scaled.max(1, keepdims=True)
    found: np.ndarray = scaled - np.log(np.exp(scaled).sum(1, keepdims=True))
    return found
