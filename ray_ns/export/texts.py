"""Arrow columns as text: JSON, and cells that no spreadsheet takes for a formula. Only odd rows take a loop."""

import json
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# A text that begins so is run by spreadsheets (owasp.org/www-community/attacks/CSV_Injection).
FORMULA = "^[=+\\-@\\t\\r\\n＝＋－＠]"  # noqa: RUF001 - the wide signs too
_ODD = r'[\x00-\x1f\x7f"\\]'  # what JSON escapes


def in_json(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The JSON text of every value of a column of numbers, bools, texts or lists of those; nulls stay null."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    kind = column.type
    if pa.types.is_list(kind):
        items = pc.list_flatten(column)
        ends = np.cumsum(np.concatenate([[0], pc.fill_null(pc.list_value_length(column), 0).to_numpy()]))
        texts = pa.ListArray.from_arrays(pa.array(ends, pa.int32()), in_json(items))
        joined = pc.binary_join_element_wise("[", pc.binary_join(texts, ","), "]", "")
        return pc.if_else(column.is_valid(), joined, None) if column.null_count else joined
    if pa.types.is_string(kind):
        return _quoted(column)
    if pa.types.is_float16(kind):
        return _halves().take(pa.array(column.fill_null(0).to_numpy(zero_copy_only=False).view(np.uint16)))
    if pa.types.is_floating(kind):
        column = pc.if_else(pc.is_finite(column), column, None)
    return column.cast(pa.string())


def formula_safe(column: pa.Array | pa.ChunkedArray) -> tuple[pa.Array | pa.ChunkedArray, int]:
    """A column of texts with an apostrophe before those that a spreadsheet would run, and how many those are."""
    found = pc.match_substring_regex(column, FORMULA)
    count = pc.sum(found).as_py() or 0
    return (pc.if_else(found, pc.binary_join_element_wise("'", column, ""), column) if count else column), count


def _quoted(column: pa.Array) -> pa.Array:
    plain = pc.binary_join_element_wise('"', column, '"', "")
    odd = pc.fill_null(pc.match_substring_regex(column, _ODD), False)
    if not pc.any(odd).as_py():
        return plain
    escaped = [json.dumps(it, ensure_ascii=False) for it in column.filter(odd).to_pylist()]
    return pc.replace_with_mask(plain, odd, pa.array(escaped, pa.string()))


@cache
def _halves() -> pa.Array:
    """The shortest text of every float16 by its bits; null where it is no number."""
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    return pa.array([str(it) if np.isfinite(it) else None for it in every], pa.string())
