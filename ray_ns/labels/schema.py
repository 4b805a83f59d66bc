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

ITEM = b"item"
INTEGERS = frozenset({"image_id", "label", "copies", "part", "bin", "count"})
GROUP_ROWS = 2**17  # which are held in memory until all are written
SOFT = ("top_label", "top_probability", "probability")


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
    """The table as one Parquet file; ``lineage`` lies in the file's metadata.

    Whoever reads it here has checked all of it before. Pages of label tables have checksums for other readers, of which
    there are many; those of a selection would take up to 7 % of its time.

    Columns without a null are required ones in the file, which are read and written in half the time.

    Nothing is compressed: the encodings leave a tenth to save (a sixth of soft labels), which costs half the speed of
    every reading. Lists lie in the file as fixed_size_binary, little-endian, with the type of their items in the
    field's metadata: as Parquet lists they would take ten times as long to read.
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
    # Dictionaries are read a little faster and written at half the speed: for labels, which are read again and again.
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
    """``columns`` (all) of a table that ``to_parquet`` wrote, from bytes that have been checked, by one thread.

    ``lists``: False leaves them the bytes that they are in the file, for whoever only hands them on. Raises
    ``IntegrityError`` naming ``key`` where it is no such table.
    """
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        table = file.read(columns, use_threads=False)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise IntegrityError(f"{key}: not the label table that was written ({error})") from error
    # Which columns a file requires depends on its rows; tables of all files must fit together.
    fields = [field.with_nullable(True) for field in table.schema]
    table = pa.Table.from_arrays(table.columns, schema=pa.schema(fields, table.schema.metadata))
    for at, field in enumerate(fields):
        if lists and field.metadata and ITEM in field.metadata:
            table = table.set_column(at, field.name, _unpacked(table[field.name], field.metadata[ITEM].decode()))
    return table


def _packed(column: pa.ChunkedArray) -> pa.Array:
    """Lists of one length as bytes."""
    rows = column.combine_chunks()
    size = rows.type.list_size
    values = rows.values.slice(rows.offset * size, len(rows) * size).to_numpy(zero_copy_only=False)
    valid = pa.array(rows.is_valid()).buffers()[1] if rows.null_count else None
    return pa.Array.from_buffers(pa.binary(size * values.itemsize), len(rows), [valid, pa.py_buffer(values)])


def _unpacked(column: pa.ChunkedArray, item: str) -> pa.Array:
    """The lists that ``_packed`` made bytes of."""
    rows = column.combine_chunks()
    kind = pa.type_for_alias({"halffloat": "float16"}.get(item, item))
    size = rows.type.byte_width // (kind.bit_width // 8)
    values = pa.Array.from_buffers(kind, (rows.offset + len(rows)) * size, [None, rows.buffers()[1]])
    mask = pa.array(np.asarray(rows.is_null(), bool)) if rows.null_count else None
    return pa.FixedSizeListArray.from_arrays(values.slice(rows.offset * size), size, mask=mask)


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
