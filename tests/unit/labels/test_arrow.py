"""Columns to arrays and back: the same values, no copy."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from ray_ns.labels.arrow import as_arrow, as_numpy, text_as_arrow


@pytest.mark.parametrize("kind", ["int16", "int32", "int64", "uint64", "float32"])
@pytest.mark.parametrize("rows", [0, 1, 1000])
def test_values_go_there_and_back_without_a_copy(kind: str, rows: int) -> None:
    values = np.arange(rows).astype(kind)
    column = as_arrow(values)
    assert column.equals(pa.array(values))
    back = as_numpy(column)
    np.testing.assert_array_equal(back, values)
    assert back.dtype == values.dtype
    assert not rows or np.shares_memory(back, values)


def test_pieces_are_put_together_and_parts_of_columns_are_not_the_whole() -> None:
    column = pa.chunked_array([np.arange(5), np.arange(5, 9)])
    assert as_numpy(column).tolist() == list(range(9))
    assert as_numpy(column.slice(3, 4)).tolist() == [3, 4, 5, 6]
    assert as_numpy(as_arrow(np.arange(10)[::3])).tolist() == [0, 3, 6, 9]
    assert as_numpy(pa.chunked_array([], pa.int64())).tolist() == []


def test_an_array_lives_on_in_its_column() -> None:
    column = as_arrow(np.arange(100_000))
    assert as_numpy(column)[-1] == 99_999


@pytest.mark.parametrize("values", [[], [""], ["cat", "", "Käfer 🐞", "a\nb"]])
def test_text_becomes_a_column(values: list[str]) -> None:
    assert text_as_arrow(values).equals(pa.array(values, pa.string()))


def test_none_of_it_loads_pandas() -> None:
    code = """
import sys
import numpy as np
from ray_ns.labels.arrow import as_arrow, as_numpy, text_as_arrow
as_numpy(as_arrow(np.arange(9)))
as_numpy(as_arrow(np.arange(9).astype(np.float16)))
text_as_arrow(["a"]).take(as_arrow(np.zeros(3, np.int16)))
assert "pandas" not in sys.modules
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
