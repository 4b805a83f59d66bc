"""Numeric Arrow columns as NumPy arrays and back, without a copy, and text as Arrow columns, all without pandas.

Arrow's own conversions import pandas if it is installed, which costs 0.3 s and 40 MB in every process.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa


def as_numpy(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """A column without nulls. Read-only, unless it had several chunks, which are then combined."""
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    return np.from_dlpack(column)


def as_arrow(values: np.ndarray) -> pa.Array:
    """A column of ``values`` (n,); they share memory."""
    values = np.ascontiguousarray(values)
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, pa.py_buffer(values)])


def text_as_arrow(values: Sequence[str]) -> pa.Array:
    """A column of ``values``."""
    encoded = [value.encode() for value in values]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    return pa.StringArray.from_buffers(len(encoded), pa.py_buffer(ends), pa.py_buffer(b"".join(encoded)))
