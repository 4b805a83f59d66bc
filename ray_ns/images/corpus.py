"""Corpora: ordered lists of Parquet shards of encoded images, read as they are.

An image is known by its ``ImageId``, an int64 made of its shard's ordinal and its row in the shard. The ordinal is
given when a shard is first seen and never changes, so ids never move. Filesystems are pyarrow's, from a path or URL.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs

from ray_ns.errors import InputError

ROW_BITS = 32


def image_ids(ordinal: int, rows: np.ndarray) -> np.ndarray:
    """ImageIds (int64) of ``rows`` (integers, 0-based) of the shard ``ordinal``."""
    return (np.int64(ordinal) << ROW_BITS) | np.asarray(rows, np.int64)


def split_ids(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The shard ordinals and the rows (both int64) of ``ids``."""
    return ids >> ROW_BITS, ids & ((1 << ROW_BITS) - 1)


@dataclass(frozen=True)
class Shard:
    """One Parquet file of a corpus, known by its path below the root, its size in bytes and its mtime (ns)."""

    ordinal: int
    path: str
    size: int
    stamp: int


@dataclass(frozen=True)
class Corpus:
    """Shards below one root; ``label_column`` is None for a pool."""

    root: str
    image_column: str
    label_column: str | None
    shards: tuple[Shard, ...]

    @classmethod
    def scan(cls, root: str, image_column: str, label_column: str | None, known: Sequence[Shard] = ()) -> "Corpus":
        """The Parquet files below ``root``: the ``known`` ones with their ordinals, then new ones by path.

        Raises ``InputError``: no such folder, no shard in it, a known shard gone or changed.
        """
        filesystem, base = _filesystem(root)
        files = _parquet_files(filesystem, base, root)
        for shard in known:
            now = files.pop(shard.path, None)
            if now != (shard.size, shard.stamp):
                state = "is gone" if now is None else f"has changed ({shard.size} -> {now[0]} bytes, or its mtime)"
                raise InputError(
                    f"{root}/{shard.path} {state} since this run first saw it. Put the same file back, or start a "
                    f"new run with another run.dir."
                )
        ordinal = 1 + max((shard.ordinal for shard in known), default=-1)
        new = (Shard(ordinal + i, path, *files[path]) for i, path in enumerate(sorted(files)))
        return cls(root, image_column, label_column, (*known, *new))

    def open(self, shard: Shard) -> "ShardReader":
        """Open a shard for reading: its footer is read now, its rows when asked for."""
        return ShardReader(self, shard)

    def labels(self, classes: int) -> list[np.ndarray]:
        """The labels (int64) of every shard, in order.

        Raises ``InputError`` for a null or a label outside 0 .. classes-1, naming shard and row.
        """
        found = []
        for shard in self.shards:
            column = self.open(shard).column(self.label_column or "")
            signed = column.cast(pa.int64(), safe=False)  # an unsigned label too large for it comes out negative
            wrong = pc.or_kleene(pc.less(signed, 0), pc.greater_equal(signed, classes))
            row = pc.index(pc.fill_null(wrong, True), True).as_py()
            if row >= 0:
                raise InputError(
                    f"{self.root}/{shard.path} row {row}: {self.label_column} is {column[row].as_py()}; expected "
                    f"0 .. {classes - 1} (data.classes = {classes})"
                )
            found.append(column.to_numpy().astype(np.int64))
        return found


class ShardReader:
    """Reads one shard by row group."""

    def __init__(self, corpus: Corpus, shard: Shard) -> None:
        filesystem, base = _filesystem(corpus.root)
        self._name = f"{corpus.root}/{shard.path}"
        self._image_column = corpus.image_column
        try:
            self._file = pq.ParquetFile(f"{base}/{shard.path}", filesystem=filesystem, page_checksum_verification=True)
        except (OSError, pa.ArrowInvalid) as error:
            raise InputError(f"{self._name}: cannot be read as Parquet ({error}). Mend or remove the file.") from error
        for column in (corpus.image_column, corpus.label_column):
            if column is not None and column not in self._file.schema_arrow.names:
                raise InputError(
                    f"{self._name}: no column {column!r}, found {', '.join(self._file.schema_arrow.names)}. Set "
                    f"data.image_column and data.label_column."
                )

    @cached_property
    def group_rows(self) -> list[int]:
        """Rows of each row group."""
        meta = self._file.metadata
        return [meta.row_group(group).num_rows for group in range(meta.num_row_groups)]

    def images(self, group: int) -> pa.Array:
        """The encoded images of a row group, as an Arrow array of (large) binary; nulls stay null."""
        column = self._read(lambda: self._file.read_row_group(group, columns=[self._image_column]))
        if pa.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0:
            column = pc.struct_field(column, "bytes")
        if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
            raise InputError(
                f"{self._name}: column {self._image_column!r} is {column.type}; expected encoded images as binary, or "
                f"a struct with a binary field 'bytes'"
            )
        return column

    def column(self, name: str) -> pa.Array:
        """One whole column of integers. Raises ``InputError`` where it is of another type."""
        column = self._read(lambda: self._file.read(columns=[name]))
        if not pa.types.is_integer(column.type):
            raise InputError(f"{self._name}: column {name!r} is {column.type}; expected integers")
        return column

    def _read(self, read: Callable[[], pa.Table]) -> pa.Array:
        try:
            return read().column(0).combine_chunks()
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{self._name}: damaged Parquet ({error}). Restore or remove the file.") from error


def count_per_class(labels: Iterable[np.ndarray], classes: int) -> np.ndarray:
    """Images of each class, int64 of length ``classes``."""
    return sum((np.bincount(part, minlength=classes) for part in labels), np.zeros(classes, np.int64))


def _filesystem(root: str) -> tuple[fs.FileSystem, str]:
    if "://" in root:
        try:
            filesystem, base = fs.FileSystem.from_uri(root)
        except pa.ArrowInvalid as error:
            raise InputError(
                f"{root}: not a place that pyarrow can read ({error}). Give a path or an s3:// URL."
            ) from error
        return filesystem, base.rstrip("/")
    return fs.LocalFileSystem(), root.rstrip("/")


def _parquet_files(filesystem: fs.FileSystem, base: str, root: str) -> dict[str, tuple[int, int]]:
    try:
        entries = filesystem.get_file_info(fs.FileSelector(base, recursive=True))
    except OSError as error:
        raise InputError(f"{root}: cannot be listed ({error}). Give a folder of Parquet shards.") from error
    files = {
        entry.path[len(base) :].lstrip("/"): (entry.size, entry.mtime_ns or 0)
        for entry in entries
        if entry.type == fs.FileType.File and entry.path.endswith(".parquet")
    }
    if not files:
        raise InputError(f"{root}: no *.parquet file in it; expected a folder of Parquet shards")
    return files
