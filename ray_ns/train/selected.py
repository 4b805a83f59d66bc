"""A selection as training needs it: 12 bytes per image in memory, soft labels in a scratch file."""

import tempfile
from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from ray_ns.labels import schema


class Selected:
    """The selected images by ascending ``ids`` (int64), with ``copies`` and ``labels`` (int16, or wider where needed).

    Soft labels are read from the selection's parts one at a time and memory-mapped from an unnamed temporary file:
    reclaimable page cache, which loader processes share.
    """

    def __init__(self, tables: Iterable[pa.Table]) -> None:
        plain: dict[str, list[np.ndarray]] = {"image_id": [], "label": [], "copies": []}
        files: dict[str, _Rows] = {}
        for table in tables:
            for name in table.column_names:
                if name in plain:
                    plain[name].append(_narrow(table[name].to_numpy()))
                elif name in schema.SOFT:
                    if name not in files:
                        files[name] = _Rows()
                    files[name].append(table[name].combine_chunks())
        joined = {name: np.concatenate(arrays) for name, arrays in plain.items()}
        ids = joined["image_id"].astype(np.int64)
        self._order: np.ndarray | None = None
        if not (ids[1:] > ids[:-1]).all():
            self._order = np.argsort(ids)
            ids, joined = ids[self._order], {name: column[self._order] for name, column in joined.items()}
        self.ids, self.labels, self.copies = ids, joined["label"], joined["copies"]
        self._soft = {name: file.mapped() for name, file in files.items()}

    def soft(self, rows: np.ndarray, classes: int) -> np.ndarray:
        """Soft labels, float32 (n, classes), of ``rows`` of ``ids``; one-hot where the selection holds none."""
        at = rows if self._order is None else self._order[rows]
        columns = {"label": pa.array(self.labels[rows])}
        for name, stored in self._soft.items():
            values = np.ascontiguousarray(stored[at])
            columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
        return schema.soft_targets(pa.table(columns), classes)


class _Rows:
    """Lists of one length, appended to a file that goes with its last user."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="ray_ns-soft-")  # noqa: SIM115 - the mapping outlives it
        self._rows = 0

    def append(self, lists: pa.FixedSizeListArray) -> None:
        values = lists.flatten().to_numpy(zero_copy_only=False)
        self._width, self._kind = lists.type.list_size, values.dtype
        self._rows += len(lists)
        self._file.write(values.tobytes())

    def mapped(self) -> np.ndarray:
        shape = (self._rows, self._width)
        with self._file as file:  # closed, it lasts as long as its mapping
            file.flush()
            return np.memmap(file, self._kind, "r", shape=shape) if self._rows else np.empty(shape, self._kind)


def _narrow(column: np.ndarray) -> np.ndarray:
    """Integers as int16 where they fit."""
    wide = len(column) and (column.max() > np.iinfo(np.int16).max or column.min() < 0)
    return column if wide else column.astype(np.int16)
