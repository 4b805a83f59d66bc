"""Metrics of a classifier on labelled images."""

from typing import Any

import numpy as np

TOP = 5


def metrics(
    predicted: np.ndarray, confidence: np.ndarray, truth: np.ndarray, classes: int, early: bool = False
) -> dict[str, Any]:
    """Top-1 accuracy (0..1), calibration error and top-1 per class, each None where there is no image for it.

    An unreadable image is wrong, and the calibration error leaves it out: the rule of ``figures``.

    Args:
        predicted: int (n,), -1 for an unreadable image, which counts as wrong.
        confidence: float (n,), 0 for unreadable images.
        truth: int (n,).
        classes: number of classes.
        early: by the rule of runs up to format 4, whose records stay as they would have been: an unreadable image
            counts in the calibration error, as a wrong one of confidence 0, and a class without images has 0.
    """
    right = predicted == truth
    read = np.full(len(truth), True) if early else predicted >= 0
    total = np.bincount(truth, minlength=classes)
    per_class = np.bincount(truth[right], minlength=classes) / np.maximum(total, 1)
    return {
        "images": len(truth),
        "unreadable": int((predicted < 0).sum()),
        "top1": float(right.mean()) if len(truth) else None,
        "calibration_error": calibration_error(confidence[read], right[read]) if read.any() else None,
        "top1_per_class": [
            round(float(share), 6) if of or early else None for share, of in zip(per_class, total, strict=True)
        ],
    }


def of_probabilities(loss: np.ndarray, top: np.ndarray, truth: np.ndarray, classes: int) -> dict[str, Any]:
    """What takes more than the label: ``nll``, in nats, of readable images; ``top5``, 0..1, with more than 5 classes.

    None of no image.

    Args:
        loss: float (n,), -ln of the true class's probability, NaN where an image is unreadable.
        top: int (n, k), the most probable classes, -1 where it is.
        truth: int (n,).
        classes: number of classes.
    """
    readable = np.isfinite(loss)
    found = {"nll": float(loss[readable].mean()) if readable.any() else None}
    if classes > TOP:
        found["top5"] = float((top[:, :TOP] == truth[:, None]).any(1).mean()) if len(truth) else None
    return found


def calibration_error(confidence: np.ndarray, right: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error: |confidence - top-1| averaged over ``bins`` equal bins (Guo et al. 2017)."""
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(bin_of, confidence - right, minlength=bins)
    return float(np.abs(gaps).sum() / max(len(right), 1))
