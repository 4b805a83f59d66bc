"""The label table: one row per image of a corpus, with either a label or the reason why it has none.

Columns: ``image_id`` int64, ``label`` int16 and ``confidence`` float32 (null in quarantine), ``quarantine`` string
(null where labelled). Then the soft label: ``top_label`` and ``top_probability``, lists of k (int16, float16), or
``probability``, a list of all classes (float16). The table holds no images: join it by ``image_id``.

``from_parquet`` reads the tables of every format of a run, ``to_parquet`` writes those of formats 1 and 2, and rows
that are set aside for a while. ``files`` writes those of format 3.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ray_ns.errors import IntegrityError
from ray_ns.labels.arrow import as_numpy

ITEM = b"item"
INTEGERS = frozenset({"image_id", "label", "truth", "copies", "part", "bin", "count"})
GROUP_ROWS = 2**17  # rows per row group; the writer holds one in memory
SOFT = ("top_label", "top_probability", "probability")


def label_table(
    ids: np.ndarray, probabilities: np.ndarray, reasons: Sequence[str | None], keep: str, top: int
) -> pa.Table:
    """The label rows of one slice.

    Args:
        ids: int64 (n,).
        probabilities: float32 (n, classes); the rows of quarantined images are ignored.
        reasons: why an image is in quarantine, or None (n,).
        keep: which probabilities are stored: ``hard`` none, ``top`` the ``top`` largest, ``full`` all.
        top: how many, for ``keep="top"``; at most the number of classes.
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
        order = largest(probabilities, top)
        columns["top_label"] = _lists(order.astype(np.int16), bad)
        columns["top_probability"] = _lists(np.take_along_axis(probabilities, order, 1).astype(np.float16), bad)
    elif keep == "full":
        columns["probability"] = _lists(probabilities.astype(np.float16), bad)
    return pa.table(columns)


def soft_targets(table: pa.Table, classes: int) -> np.ndarray:
    """Soft labels, float32 (n, classes), each row summing to 1.

    With ``top`` the remaining probability is spread evenly over the other classes. A table without soft columns gives
    one-hot rows. Quarantined rows are not allowed.
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
    """The table as one Parquet file, with ``lineage`` in the file's metadata.

    - Page checksums: for label tables only, for other programs that read them. This program checks the whole file's
      hash before it reads. On selections they would cost up to 7 % of the time.
    - Columns without nulls are required columns in the file: they are read and written in half the time.
    - No compression: after the encodings it would save a tenth (a sixth for soft labels) and halve the reading speed.
    - Lists are stored as fixed_size_binary, little-endian, with the item type in the field's metadata. Parquet lists
      would take ten times as long to read.
    """
    for name in [field.name for field in table.schema if pa.types.is_fixed_size_list(field.type)]:
        item = table.schema.field(name).type.value_type
        packed = _packed(table[name])
        field = pa.field(name, packed.type, metadata={ITEM: str(item)})
        table = table.set_column(table.schema.get_field_index(name), field, packed)
    fields = [
        field.with_nullable(column.null_count > 0) for field, column in zip(table.schema, table.columns, strict=True)
    ]
    table = pa.Table.from_arrays(table.columns, schema=pa.schema(fields, dict(lineage)))
    of_labels = "quarantine" in table.column_names
    # A dictionary is a little faster to read and takes twice as long to write: worth it for labels, read many times.
    words = ["label", "quarantine"] if of_labels else []
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        compression="none",
        row_group_size=GROUP_ROWS,
        use_dictionary=words,
        column_encoding={name: "DELTA_BINARY_PACKED" for name in table.column_names if name in INTEGERS - set(words)},
        write_page_checksum=of_labels,
        write_statistics=[name for name in table.column_names if name not in SOFT] if of_labels else False,
        store_schema=True,
    )
    return sink.getvalue().to_pybytes()


def from_parquet(data: bytes, key: str, columns: Sequence[str] | None = None, lists: bool = True) -> pa.Table:
    """``columns`` (None: all) of a table of a run of any format. One thread; the bytes must have been verified.

    ``lists``: False leaves lists that are bytes in the file, as in formats 1 and 2, as they are, for a caller that only
    writes them again. Raises ``IntegrityError`` with ``key`` if the data is no such table.
    """
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        table = file.read(columns, use_threads=False)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise IntegrityError(f"{key}: not the label table that was written ({error})") from error
    # Which columns are required differs from file to file; nullable columns can be concatenated.
    fields = [field.with_nullable(True) for field in table.schema]
    table = pa.Table.from_arrays(table.columns, schema=pa.schema(fields, table.schema.metadata))
    for at, field in enumerate(fields):
        if lists and field.metadata and ITEM in field.metadata:
            table = table.set_column(at, field.name, _unpacked(table[field.name], field.metadata[ITEM].decode()))
    return table


def _packed(column: pa.ChunkedArray) -> pa.Array:
    """Lists of equal length as one bytes value per row."""
    rows = column.combine_chunks()
    size = rows.type.list_size
    values = as_numpy(rows.values.slice(rows.offset * size, len(rows) * size))
    valid = pa.array(rows.is_valid()).buffers()[1] if rows.null_count else None
    return pa.Array.from_buffers(pa.binary(size * values.itemsize), len(rows), [valid, pa.py_buffer(values)])


def _unpacked(column: pa.ChunkedArray, item: str) -> pa.Array:
    """The inverse of ``_packed``."""
    rows = column.combine_chunks()
    kind = pa.type_for_alias({"halffloat": "float16"}.get(item, item))
    size = rows.type.byte_width // (kind.bit_width // 8)
    values = pa.Array.from_buffers(kind, (rows.offset + len(rows)) * size, [None, rows.buffers()[1]])
    mask = pa.array(np.asarray(rows.is_null(), bool)) if rows.null_count else None
    return pa.FixedSizeListArray.from_arrays(values.slice(rows.offset * size), type=_list_of(kind, size), mask=mask)


def largest(probabilities: np.ndarray, top: int) -> np.ndarray:
    """Indices of the ``top`` largest of each row, largest first, ties by index. Faster than a full sort."""
    found = np.sort(np.argpartition(-probabilities, top - 1, axis=1)[:, :top], axis=1)
    values = np.take_along_axis(probabilities, found, 1)
    found = np.take_along_axis(found, np.argsort(-values, axis=1, kind="stable"), 1)
    # Rows with a tie at the edge, where argpartition takes any of the equal ones, and rows with NaN: sort them fully.
    unclear = (probabilities >= values.min(1, keepdims=True)).sum(1) != top
    found[unclear] = np.argsort(-probabilities[unclear], axis=1, kind="stable")[:, :top]
    return found


def _lists(rows: np.ndarray, bad: np.ndarray) -> pa.Array:
    values = pa.array(rows.reshape(-1))
    return pa.FixedSizeListArray.from_arrays(values, type=_list_of(values.type, rows.shape[1]), mask=pa.array(bad))


def _list_of(kind: pa.DataType, size: int) -> pa.DataType:
    """Lists of ``size`` values, none of which is null."""
    return pa.list_(pa.field("element", kind, nullable=False), size)


def _matrix(column: pa.ChunkedArray, count: int) -> np.ndarray:
    values = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return values.astype(np.float32).reshape(count, -1)
