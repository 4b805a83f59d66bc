"""Numeric Arrow columns as NumPy arrays and back, without a copy and without pandas.

Arrow's own conversions import pandas if it is installed, which costs 0.3 s and 40 MB in every process.
"""

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
