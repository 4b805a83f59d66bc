"""Every figure of a network on a labelled corpus, with its interval: from one row per image."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from ray_ns.evaluate.intervals import Z, wilson
from ray_ns.evaluate.metrics import TOP, calibration_error

FEWEST = {1: 12.7062, 2: 4.3027, 3: 3.1824}  # of Student's distribution, where the series is too rough
FEW = 5  # images, of fewer no interval of a mean or of a calibration error is given
SAMPLES = 200  # for the interval of a calibration error
REAL_COLUMN = "real"
BINS = 15  # of the reliability table (Guo et al. 2017)
MATRIX = 100  # classes up to which the whole confusion matrix is given
CONFUSED = 100  # pairs of classes that are given beyond that, the most frequent ones


@dataclass(frozen=True)
class Judged:
    """What a network says of images, a row each.

    ``truth``, ``label``: int (n,), ``label`` -1 where the image cannot be read. ``confidence``: float (n,), of the
    label; ``loss``: float (n,), -ln of the true class's probability; both mean nothing where it cannot. ``top``: int
    (n, k), the most probable classes, the first of which is the label. ``frames``: of sequences, int (n, frames, k).
    ``accepted``: of images that may have several true classes, int (n,): 1 the label is one of them, 0 not, -1 none is.
    """

    truth: np.ndarray
    label: np.ndarray
    confidence: np.ndarray
    loss: np.ndarray
    top: np.ndarray
    frames: np.ndarray | None = None
    accepted: np.ndarray | None = None

    @property
    def right(self) -> np.ndarray:
        """Bool (n,): whether the label is the truth. An unreadable image is wrong."""
        return self.truth == self.label


def figures(judged: Judged, classes: int, allowed: int | None = None) -> dict[str, Any]:
    """JSON values: shares are 0..1, intervals 95 % (Wilson's; of the calibration error by resampling).

    Unreadable images count as wrong in ``top1``, ``top5`` and per class; ``calibration_error``, ``reliability`` and
    ``nll`` are of those that can be read, None where there are none. ``allowed``: how many of the ``classes`` the
    network chose among; None: all. ``top5`` is None where those are five or fewer.
    """
    images, readable = len(judged.truth), judged.label >= 0
    found = {"images": images, "unreadable": int((~readable).sum())} | share("top1", judged.right)
    among_five = (judged.top == judged.truth[:, None]).any(1) & readable
    found |= share("top5", among_five) if (allowed or classes) > TOP else {"top5": None}
    table = reliability(judged.confidence[readable], judged.right[readable])
    gaps = [row["images"] * abs(row["confidence"] - row["top1"]) for row in table]
    some = int(readable.sum())
    found |= {
        "calibration_error": round(sum(gaps) / some, 6) if some else None,
        "calibration_error_interval": _resampled(judged.confidence[readable], judged.right[readable]),
        "reliability": table,
        "nll": round(float(judged.loss[readable].mean()), 6) if some else None,
    }
    return found | per_class(judged, classes)


def share(name: str, right: np.ndarray) -> dict[str, Any]:
    """The share of bool (n,) with its Wilson interval, by ``name``; both None of no image."""
    if not len(right):
        return {name: None, f"{name}_interval": None}
    value = float(right.mean())
    return {name: round(value, 6), f"{name}_interval": [round(it, 6) for it in wilson(value, len(right))]}


def reliability(confidence: np.ndarray, right: np.ndarray) -> list[dict[str, Any]]:
    """The bins of equal width that hold images, lowest first: mean confidence and share right, with its interval."""
    at = np.minimum((confidence * BINS).astype(int), BINS - 1)
    found = []
    for number in np.unique(at).tolist():
        these = at == number
        mean = round(float(confidence[these].mean()), 6)
        found.append({"from": round(number / BINS, 6), "images": int(these.sum()), "confidence": mean})
        found[-1] |= share("top1", right[these])
    return found


def _resampled(confidence: np.ndarray, right: np.ndarray) -> list[float] | None:
    """The middle 95 % of the calibration errors of samples drawn from the images with replacement.

    None of fewer images than ``FEW``. A sample's error is mostly larger than that of the images it is drawn from, so
    the interval leans upwards.
    """
    if len(right) < FEW:
        return None
    rng, found = np.random.default_rng(0), []
    for _ in range(SAMPLES):
        drawn = rng.integers(0, len(right), len(right))
        found.append(calibration_error(confidence[drawn], right[drawn], BINS))
    return [round(float(it), 6) for it in np.quantile(found, [0.025, 0.975])]


def per_class(judged: Judged, classes: int) -> dict[str, Any]:
    """Images and top-1 of each class, and which class is taken for which.

    ``confusion``: rows are true classes, columns labels; None with more than ``MATRIX`` classes. ``confused``: the most
    frequent mistakes as [truth, label, images].
    """
    total = np.bincount(judged.truth, minlength=classes)
    hits = np.bincount(judged.truth[judged.right], minlength=classes)
    read = judged.label >= 0
    pairs, counts = np.unique(np.stack([judged.truth[read], judged.label[read]], 1), axis=0, return_counts=True)
    wrong = pairs[:, 0] != pairs[:, 1]
    order = np.argsort(-counts[wrong], kind="stable")[:CONFUSED]
    matrix = np.zeros((classes, classes), int) if classes <= MATRIX else None
    if matrix is not None:
        matrix[pairs[:, 0], pairs[:, 1]] = counts
    return {
        "images_per_class": total.tolist(),
        "top1_per_class": [round(hit / of, 6) if of else None for hit, of in zip(hits, total, strict=True)],
        "confusion": None if matrix is None else matrix.tolist(),
        "confused": [
            [*pair, count]
            for pair, count in zip(pairs[wrong][order].tolist(), counts[wrong][order].tolist(), strict=True)
        ],
    }


def mean(values: np.ndarray, least: float = 0.0) -> dict[str, Any]:
    """The mean of one value per image, float (n,) from ``least`` to 1, with its 95 % interval: it is the images' draw.

    Values of many views of one image hang together, so they have to be one value here. The interval is Student's; where
    all values are equal Wilson's, as for a share. None of fewer than ``FEW`` images. The mean is None of no image.
    """
    many = len(values)
    if not many:
        return {"value": None, "interval": None}
    value = float(values.mean())
    if many < FEW:
        return {"value": round(value, 6), "interval": None}
    spread = float(values.std(ddof=1))
    if spread < 1e-12:
        low, high = (least + (1 - least) * it for it in wilson((value - least) / (1 - least), many))
    else:
        half = student(many - 1) * spread / many**0.5
        low, high = max(least, value - half), min(1.0, value + half)
    return {"value": round(value, 6), "interval": [round(low, 6), round(high, 6)]}


def student(freedom: int) -> float:
    """Student's quantile of a 95 % interval with so many degrees of freedom, to 0.01 (Fisher's series from 4 on)."""
    if freedom in FEWEST:
        return FEWEST[freedom]
    z = Z
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )


def of_table(table: pa.Table) -> Judged:
    """The rows of a table with ``truth``, ``label``, ``confidence``, ``loss`` and ``top_label``."""
    sequences = "frames" in table.column_names
    top = table["top_label"].combine_chunks()
    size = top.type.list_size
    labels = np.full((len(table), size), -1, np.int64)
    labels[table["label"].is_valid().to_numpy()] = top.flatten().to_numpy().reshape(-1, size)
    return Judged(
        table["truth"].to_numpy().astype(np.int64),
        table["label"].fill_null(-1).to_numpy().astype(np.int64),
        table["confidence"].fill_null(0).to_numpy(),
        table["loss"].fill_null(0).to_numpy(),
        labels,
        _frames(table, size) if sequences else None,
        _accepted(table) if REAL_COLUMN in table.column_names else None,
    )


def _frames(table: pa.Table, size: int) -> np.ndarray:
    """Int (n, frames, size); of no row no frame, since only rows say how many there are."""
    classes = table["frames"].combine_chunks().flatten().to_numpy()
    return classes.reshape(len(table), -1 if len(table) else 0, size)


def _accepted(table: pa.Table) -> np.ndarray:
    pairs = zip(table["label"].to_pylist(), table[REAL_COLUMN].to_pylist(), strict=True)
    return np.array([-1 if not of else int(label in of) for label, of in pairs], np.int64)


def stacked(parts: Sequence[Judged]) -> Judged:
    """The rows of all parts."""
    names = ("truth", "label", "confidence", "loss", "top")
    found = Judged(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))
    if parts and parts[0].accepted is not None:
        found = replace(found, accepted=np.concatenate([part.accepted for part in parts if part.accepted is not None]))
    sequences = [part.frames for part in parts if part.frames is not None]
    sequences = [it for it in sequences if len(it)] or sequences[:1]
    return replace(found, frames=np.concatenate(sequences)) if sequences else found
