"""The columns that leave a run: one row per image, with where it lies, its label, and what became of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ray_ns.labels.schema import largest

TOP = 5  # classes named with their probabilities, at most
BELOW, BEYOND = "below_threshold", "beyond_quota"

SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("member", pa.string()),
        ("row", pa.int64()),
        ("source", pa.string()),
        ("duplicates", pa.list_(pa.string())),
        ("image_id", pa.int64()),
        ("label", pa.int16()),
        ("label_name", pa.string()),
        ("confidence", pa.float32()),
        ("margin", pa.float32()),
        ("selected", pa.bool_()),
        ("copies", pa.int64()),
        ("reason", pa.string()),
        ("top_label", pa.list_(pa.int16())),
        ("top_name", pa.list_(pa.string())),
        ("top_probability", pa.list_(pa.float16())),
    ]
)
Columns = dict[str, pa.Array]


@dataclass(frozen=True)
class Top:
    """The largest probabilities of the rows that have a label.

    ``labels`` int16 and ``probabilities`` float16 (m, k), largest first; ``labelled`` bool (n,): which rows they are.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    labelled: np.ndarray

    @classmethod
    def of(cls, table: pa.Table) -> "Top | None":
        """Those of a label table; None where it keeps hard labels only."""
        labelled = table["label"].is_valid().to_numpy()
        rows = table.filter(pa.array(labelled)) if not labelled.all() else table
        if "top_label" in table.column_names:
            return cls(_matrix(rows["top_label"])[:, :TOP], _matrix(rows["top_probability"])[:, :TOP], labelled)
        if "probability" in table.column_names:
            labels = rows["label"].to_numpy().astype(np.int64)
            return cls(*_largest(_matrix(rows["probability"]), labels), labelled)
        return None

    def columns(self, names: pa.Array | None, confidence: np.ndarray) -> Columns:
        """``top_label``, ``top_name`` (null lists where classes have no ``names``), ``top_probability``, ``margin``.

        ``confidence``: float32 (n,). The margin is from it, not from the first probability, whose 16 bits may say 1.
        """
        size = self.labels.shape[1]
        margin = np.full(len(self.labelled), np.nan, np.float32)
        if size > 1:
            second = self.probabilities[:, 1].astype(np.float32)
            margin[self.labelled] = np.maximum(confidence[self.labelled] - second, 0)
        flat = pa.array(self.labels.reshape(-1))
        return {
            "top_label": self._lists(flat, size),
            "top_name": _no_lists(len(self.labelled), pa.string())
            if names is None
            else self._lists(names.take(flat), size),
            "top_probability": self._lists(pa.array(self.probabilities.reshape(-1)), size),
            "margin": pa.array(margin, mask=np.isnan(margin)),
        }

    def _lists(self, values: pa.Array, size: int) -> pa.Array:
        ends = np.concatenate([[0], np.cumsum(self.labelled * size)])
        return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), values, mask=pa.array(~self.labelled))


def of_labels(table: pa.Table, names: Sequence[str] | None) -> Columns:
    """The columns that a label table gives. ``names``: of the classes, by number; None where they have none."""
    labels, count = table["label"].combine_chunks(), table.num_rows
    named = None if names is None else pa.array(names, pa.string())
    top = Top.of(table)
    soft: Columns = (
        top.columns(named, table["confidence"].to_numpy())
        if top
        else {
            "top_label": _no_lists(count, pa.int16()),
            "top_name": _no_lists(count, pa.string()),
            "top_probability": _no_lists(count, pa.float16()),
            "margin": pa.nulls(count, pa.float32()),
        }
    )
    return {
        "image_id": table["image_id"].combine_chunks(),
        "label": labels,
        "label_name": pa.nulls(count, pa.string()) if named is None else named.take(labels),
        "confidence": table["confidence"].combine_chunks(),
        **soft,
    }


def of_selection(table: pa.Table, copies: np.ndarray | None, thresholds: Sequence[float | None]) -> Columns:
    """``selected``, ``copies`` and ``reason`` of a label table's rows.

    Args:
        table: the label table.
        copies: of each row, int64 (n,), 0 where it is not selected; None where nothing is selected of these labels.
        thresholds: of the selection, by class.
    """
    quarantine, count = table["quarantine"].combine_chunks().cast(pa.string()), table.num_rows
    if copies is None:
        return {"selected": pa.nulls(count, pa.bool_()), "copies": pa.nulls(count, pa.int64()), "reason": quarantine}
    least = np.array([np.inf if it is None else it for it in thresholds], np.float32)
    below = pc.less(table["confidence"].combine_chunks(), pa.array(least).take(table["label"].combine_chunks()))
    left = pc.if_else(below, BELOW, BEYOND)  # null where there is no label
    why = pc.if_else(pa.array(copies > 0), pa.scalar(None, pa.string()), left)
    return {
        "selected": pa.array(copies > 0),
        "copies": pa.array(copies, pa.int64()),
        "reason": pc.coalesce(quarantine, why),
    }


def _matrix(column: pa.ChunkedArray) -> np.ndarray:
    """Lists of equal length without nulls as an array (n, k)."""
    rows = column.combine_chunks()
    values = rows.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(rows), -1) if len(rows) else values.reshape(0, 1)


def _largest(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ``TOP`` largest of each row of ``probabilities`` (n, classes): labels int16, probabilities float16.

    The row's label is the first; equal ones go by their numbers.
    """
    some = min(TOP, probabilities.shape[1])
    found = np.empty((len(labels), some), np.int16)
    step = max(1, 2**22 // probabilities.shape[1])  # 16 MB at once
    for begin in range(0, len(labels), step):
        these, own = probabilities[begin : begin + step].astype(np.float32), labels[begin : begin + step]
        these[np.arange(len(own)), own] = np.inf  # rounded to float16 it may have equals
        found[begin : begin + step] = largest(these, some)
    return found, np.take_along_axis(probabilities, found.astype(np.int64), 1)


def _no_lists(count: int, kind: pa.DataType) -> pa.Array:
    return pa.nulls(count, pa.list_(kind))
