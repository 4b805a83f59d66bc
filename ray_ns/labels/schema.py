"""The label table: one row per image of a corpus, a label or a quarantine reason, never both and never neither.

Columns: ``image_id`` int64, ``label`` int16 and ``confidence`` float32 (null in quarantine), ``quarantine`` string
(null where labelled), then the soft label: ``top_label``/``top_probability`` lists of k (int16, float16), or
``probability``, a list of all classes (float16). Stored as a join table, never beside image bytes.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ray_ns.errors import IntegrityError


def label_table(
    ids: np.ndarray, probabilities: np.ndarray, reasons: Sequence[str | None], keep: str, top: int
) -> pa.Table:
    """The label rows of one slice.

    Args:
        ids: int64 (n,).
        probabilities: float32 (n, classes); the rows of quarantined images are ignored.
        reasons: why an image is in quarantine, or None (n,).
        keep: soft labels kept: ``hard`` none, ``top`` the ``top`` largest, ``full`` all.
        top: at most the number of classes is kept.
    """
    bad = np.array([reason is not None for reason in reasons], bool)
    labels = probabilities.argmax(1).astype(np.int16)
    columns: dict[str, pa.Array] = {
        "image_id": pa.array(ids, pa.int64()),
        "label": pa.array(labels, mask=bad),
        "confidence": pa.array(probabilities.max(1), mask=bad),
        "quarantine": pa.array(reasons, pa.string()),
    }
    if keep == "top":
        order = _largest(probabilities, top)
        columns["top_label"] = _lists(order.astype(np.int16), bad)
        columns["top_probability"] = _lists(np.take_along_axis(probabilities, order, 1).astype(np.float16), bad)
    elif keep == "full":
        columns["probability"] = _lists(probabilities.astype(np.float16), bad)
    return pa.table(columns)


def soft_targets(table: pa.Table, classes: int) -> np.ndarray:
    """Soft labels, float32 (n, classes), rows summing to 1: what was cut off by ``top`` is spread over the rest.

    A table without soft columns gives one-hot rows. Quarantined rows are not allowed.
    """
    count = table.num_rows
    if "probability" in table.column_names:
        full = _matrix(table["probability"], count)
        return full / full.sum(1, keepdims=True)
    dense = np.zeros((count, classes), np.float32)
    if "top_label" in table.column_names:
        index = _matrix(table["top_label"], count).astype(np.int64)
        kept = _matrix(table["top_probability"], count)
        np.put_along_axis(dense, index, kept, 1)
        rest = np.clip(1 - kept.sum(1, keepdims=True), 0, None) / max(classes - index.shape[1], 1)
        dense = np.where(dense > 0, dense, rest if classes > index.shape[1] else 0)
        return dense / dense.sum(1, keepdims=True)
    dense[np.arange(count), table["label"].to_numpy()] = 1
    return dense


def to_parquet(table: pa.Table, lineage: Mapping[str, str]) -> bytes:
    """The table as one Parquet file with page checksums; ``lineage`` lies in the file's metadata."""
    sink = pa.BufferOutputStream()
    pq.write_table(
        table.replace_schema_metadata(dict(lineage)),
        sink,
        compression="zstd",
        use_dictionary=["label", "quarantine"],
        column_encoding={"image_id": "DELTA_BINARY_PACKED"},
        write_page_checksum=True,
        store_schema=True,
    )
    return sink.getvalue().to_pybytes()


def from_parquet(data: bytes, key: str, columns: Sequence[str] | None = None) -> pa.Table:
    """A table that ``to_parquet`` wrote, from bytes whose sha256 was checked (``StoredObject.read``).

    Page checksums are checked here too, but a Parquet footer has none: only the sha256 covers every bit. Raises
    ``IntegrityError`` naming ``key``.
    """
    try:
        return pq.read_table(pa.BufferReader(data), columns=columns, page_checksum_verification=True)
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise IntegrityError(f"{key}: not the label table that was written ({error})") from error


def _largest(probabilities: np.ndarray, top: int) -> np.ndarray:
    """Where the ``top`` largest of each row are, the largest first, ties by index: a full sort's, but faster."""
    found = np.sort(np.argpartition(-probabilities, top - 1, axis=1)[:, :top], axis=1)
    values = np.take_along_axis(probabilities, found, 1)
    found = np.take_along_axis(found, np.argsort(-values, axis=1, kind="stable"), 1)
    # A tie across the edge, where the partition took any of the equals; and NaN, which equals nothing.
    unclear = (probabilities >= values.min(1, keepdims=True)).sum(1) != top
    found[unclear] = np.argsort(-probabilities[unclear], axis=1, kind="stable")[:, :top]
    return found


def _lists(rows: np.ndarray, bad: np.ndarray) -> pa.Array:
    values = pa.array(rows.reshape(-1))
    return pa.FixedSizeListArray.from_arrays(values, rows.shape[1], mask=pa.array(bad))


def _matrix(column: pa.ChunkedArray, count: int) -> np.ndarray:
    values = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return values.astype(np.float32).reshape(count, -1)
