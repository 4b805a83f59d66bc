"""Where images lie, as a table with one row per image: the one form in which every reader names its rows."""

import os
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ray_ns.corpora.formats import remote

SCHEMA = pa.schema([("path", pa.string()), ("member", pa.string()), ("row", pa.int64()), ("source", pa.string())])


def named(
    paths: str | Sequence[str],
    rows: np.ndarray,
    members: Sequence[str] | None = None,
    numbered: bool = False,
    sources: pa.Array | None = None,
) -> pa.Table:
    """The names of ``rows`` (int64, in the file): columns ``path``, ``member``, ``row`` and ``source``.

    Args:
        paths: the file of all rows, or of each, below the corpus's root.
        rows: numbers of the rows, int64 (n,).
        members: of each row the member of a tar; None where files are none.
        numbered: whether a row's number says where in the file its image lies (Parquet).
        sources: of each row where its image lay before it was packed; None where nothing says so.
    """
    count = len(rows)
    columns = [
        pa.repeat(pa.scalar(paths, pa.string()), count) if isinstance(paths, str) else pa.array(paths, pa.string()),
        pa.nulls(count, pa.string()) if members is None else pa.array(members, pa.string()),
        pa.array(rows, pa.int64()) if numbered else pa.nulls(count, pa.int64()),
        pa.nulls(count, pa.string()) if sources is None else sources,
    ]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def within_groups(rows: np.ndarray, group_rows: Sequence[int]) -> tuple[list[int], pa.Array]:
    """Which groups hold ``rows`` (int64 ascending, of the file), and where in these groups together each row is."""
    ends = np.cumsum(np.array(group_rows, np.int64))
    of = np.searchsorted(ends, rows, "right")
    groups, at = np.unique(of, return_inverse=True)
    sizes = np.array(group_rows, np.int64)[groups]
    before = np.cumsum(sizes) - sizes  # rows that the groups read before each hold
    return groups.tolist(), pa.array(rows - (ends - group_rows)[of] + before[at])


def lasting(root: str) -> str:
    """``root`` as it holds in another folder and on another day: absolute, and a URL without credentials."""
    return remote.shown(root) if "://" in root else os.path.abspath(root)


def below(root: str, paths: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """``paths`` joined to ``root``, a folder or URL as a user gives it: what a program opens. No credentials."""
    base = remote.shown(root.partition("?")[0]).removeprefix("file://") if "://" in root else root
    return pc.binary_join_element_wise(pa.scalar(base.rstrip("/")), paths, "/")
