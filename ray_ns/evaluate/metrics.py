"""Metrics of a classifier on labelled images."""

from typing import Any

import numpy as np


def metrics(predicted: np.ndarray, confidence: np.ndarray, truth: np.ndarray, classes: int) -> dict[str, Any]:
    """Top-1 accuracy (0..1), calibration error and top-1 per class.

    Args:
        predicted: int (n,), -1 for an unreadable image, which counts as wrong.
        confidence: float (n,), 0 for unreadable images.
        truth: int (n,).
        classes: number of classes.
    """
    right = predicted == truth
    total = np.bincount(truth, minlength=classes)
    per_class = np.bincount(truth[right], minlength=classes) / np.maximum(total, 1)
    return {
        "images": len(truth),
        "unreadable": int((predicted < 0).sum()),
        "top1": float(right.mean()),
        "calibration_error": calibration_error(confidence, right),
        "top1_per_class": [round(float(share), 6) for share in per_class],
    }


def calibration_error(confidence: np.ndarray, right: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error: |confidence - top-1| averaged over ``bins`` equal bins (Guo et al. 2017)."""
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(bin_of, confidence - right, minlength=bins)
    return float(np.abs(gaps).sum() / max(len(right), 1))
