"""What one round's labels share with an earlier round's: the selection carried over, and how labels changed."""

import numpy as np


def carried_over(ids: np.ndarray, chosen: np.ndarray, copies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An earlier selection (``chosen`` ids with ``copies``) in one shard's rows: their row numbers and copies."""
    _, rows, at = np.intersect1d(ids, chosen, assume_unique=True, return_indices=True)
    return rows, copies[at]


def churn(
    ids: np.ndarray, labels: np.ndarray, ids_before: np.ndarray, labels_before: np.ndarray, classes: int
) -> np.ndarray:
    """How labels changed, of the images labelled both times: int64 (3, classes).

    By the class before: how many were compared, how many changed; by the class now: how many came from another.
    """
    _, rows, at = np.intersect1d(ids, ids_before, assume_unique=True, return_indices=True)
    now, before = labels[rows], labels_before[at]
    changed = now != before
    counted = before, before[changed], now[changed]
    return np.stack([np.bincount(it, minlength=classes) for it in counted])
