"""Parquet shards: a column of encoded images, plain bytes or Hugging Face's struct {bytes, path}, and one of labels.

Parquet is read by whole row groups, for its values lie in pages that only a decoder can find. The shards that an ingest
makes (``pack``) are such that a value can be found by arithmetic: their images are a required column without
compression or dictionary, one page per row group, in which each value follows the four bytes of its length; and beside
it stand columns of each image's size and CRC-32. So the values end where the column's chunk ends, and value ``i``
begins as many bytes before as it and those behind it take
(https://parquet.apache.org/docs/file-format/data-pages/encodings/#plain-plain--0).
"""

import json
import zlib
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ray_ns.errors import InputError
from ray_ns.images.decode import MAX_BYTES, stand_in
from ray_ns.images.formats import ranges
from ray_ns.images.formats.place import Place

SIZE, CRC32 = "image_size", "image_crc32"
LENGTH_BYTES = 4
BATCH_ROWS = 16  # read at once where one of them may be too large to be held beside many others
MAX_ROWS = 2**32  # of a shard: an ImageId has room for that many
PAGE_HEADER = 48  # bytes at most; measured 25 to 41, so that two pages have more

_BROKEN = (OSError, pa.ArrowException, ValueError, MemoryError)  # what pyarrow raises on a damaged file


class ParquetReader:
    """Reads one Parquet file by row group, or by row. Opening reads the footer. See ``place.Reader``."""

    def __init__(self, place: Place, path: str, image_column: str, label_column: str | None) -> None:
        self.bytes_read = 0
        self._place, self._name = place, place.name(path)
        self._image_column, self._label_column = image_column, label_column
        try:
            self._source = place.open(path)
            self._file = pq.ParquetFile(self._source, page_checksum_verification=True)
        except _BROKEN as error:
            raise InputError(f"{self._name}: cannot be read as Parquet ({error}). Mend or remove the file.") from error
        for column in (image_column, label_column):
            if column is not None and column not in self._file.schema_arrow.names:
                raise InputError(
                    f"{self._name}: no column {column!r}, found {', '.join(self._file.schema_arrow.names)}. Set "
                    f"data.image_column and data.label_column."
                )
        self._check_rows()

    @cached_property
    def group_rows(self) -> list[int]:
        meta = self._file.metadata
        return [meta.row_group(group).num_rows for group in range(meta.num_row_groups)]

    @cached_property
    def reads_rows(self) -> bool:
        leaves = [self._leaves.get(name) for name in (self._image_column, SIZE, CRC32)]
        return all(leaf is not None and not self._file.schema.column(leaf).max_definition_level for leaf in leaves)

    @cached_property
    def _leaves(self) -> dict[str, int]:
        """The numbers of the columns of plain values, by name; a struct's have the struct's name before a dot."""
        schema = self._file.schema
        return {schema.column(leaf).path: leaf for leaf in range(len(schema))}

    def _check_rows(self) -> None:
        """Raise ``InputError`` where the footer has other numbers of rows than its columns have values."""
        meta, image = self._file.metadata, self._image_column
        leaf = self._leaves.get(image, self._leaves.get(f"{image}.bytes"))
        for group, rows in enumerate(self.group_rows):
            values = rows if leaf is None else meta.row_group(group).column(leaf).num_values
            if rows < 0 or rows != values:
                raise self._damaged(ValueError(f"row group {group} has {rows:,} rows and {values:,} images"))
        if sum(self.group_rows) != meta.num_rows or meta.num_rows >= MAX_ROWS:
            raise self._damaged(ValueError(f"{meta.num_rows:,} rows, {sum(self.group_rows):,} in its row groups"))

    def images(self, group: int, rows: np.ndarray | None = None) -> pa.Array:
        if rows is not None and len(rows) < self.group_rows[group]:
            found = self._some(group, rows) if self.reads_rows else None
            return self._whole(group).take(pa.array(rows)) if found is None else found
        return self._whole(group)

    def _some(self, group: int, rows: np.ndarray) -> pa.Array | None:
        """Images of a packed shard, each read where it lies; None where another program has written it anew."""
        chunk = self._chunks(group, [self._image_column])[0]
        sizes, checksums = self._sizes(group)
        end = chunk.data_page_offset + chunk.total_compressed_size
        begins = end - np.cumsum((sizes + LENGTH_BYTES)[::-1])[::-1]
        plain = chunk.compression == "UNCOMPRESSED" and {*chunk.encodings} <= {"PLAIN", "RLE"}  # RLE: of no nulls
        if not plain or not 0 < begins[0] - chunk.data_page_offset <= PAGE_HEADER:
            return None
        sizes, begins = sizes[rows], begins[rows]
        try:
            values, read = ranges.read(self._place, self._source, begins, sizes + LENGTH_BYTES)
        except OSError as error:
            raise self._damaged(error) from error
        self.bytes_read += read
        for row, value, size, checksum in zip(rows.tolist(), values, sizes.tolist(), checksums[rows], strict=True):
            if int.from_bytes(value[:LENGTH_BYTES], "little") != size or zlib.crc32(value[LENGTH_BYTES:]) != checksum:
                raise InputError(
                    f"{self.where(sum(self.group_rows[:group]) + row)}: not the image of {size:,} bytes and CRC-32 "
                    f"{checksum:08x} that was packed. Restore the file, or ingest its images again."
                )
        return ranges.binary([value[LENGTH_BYTES:] for value in values])

    def _sizes(self, group: int) -> tuple[np.ndarray, np.ndarray]:
        """The sizes of a group's images, int64, and their checksums."""
        try:
            table = self._file.read_row_group(group, columns=[SIZE, CRC32], use_threads=False)
        except _BROKEN as error:
            raise self._damaged(error) from error
        self.bytes_read += sum(it.total_compressed_size for it in self._chunks(group, [SIZE, CRC32]))
        return table[SIZE].to_numpy().astype(np.int64), table[CRC32].to_numpy()

    def _chunks(self, group: int, columns: Sequence[str]) -> list[pq.ColumnChunkMetaData]:
        """What the footer says of these columns of a group, of all fields of those that are structs."""
        leaves = [leaf for path, leaf in self._leaves.items() if path in columns or path.partition(".")[0] in columns]
        return [self._file.metadata.row_group(group).column(leaf) for leaf in leaves]

    def _whole(self, group: int) -> pa.Array:
        chunks = self._chunks(group, [self._image_column])
        if sum(it.total_uncompressed_size for it in chunks) > MAX_BYTES:
            return self._sifted(group)
        column = self._read(lambda: self._file.read_row_group(group, columns=[self._image_column]))
        self.bytes_read += sum(it.total_compressed_size for it in chunks)
        return self._binary(column)

    def _sifted(self, group: int) -> pa.Array:
        """The images of a group that may hold some of more than ``MAX_BYTES``, as large binary, a few at a time."""
        row = sum(self.group_rows[:group])
        if self.group_rows[group] == 1:
            return pa.array([stand_in(self.where(row))], pa.large_binary())
        found = []
        try:
            for batch in self._file.iter_batches(BATCH_ROWS, [group], [self._image_column], use_threads=False):
                column = self._binary(batch.column(0)).cast(pa.large_binary())
                large = pc.fill_null(pc.greater(pc.binary_length(column), MAX_BYTES), False)
                names = [self.where(row + at) for at in np.flatnonzero(large.to_numpy(zero_copy_only=False)).tolist()]
                stands = pa.array(map(stand_in, names), pa.large_binary())
                found.append(pc.replace_with_mask(column, large, stands))
                row += len(column)
        except _BROKEN as error:
            raise self._damaged(error) from error
        self.bytes_read += sum(it.total_compressed_size for it in self._chunks(group, [self._image_column]))
        return pa.concat_arrays(found)

    def _binary(self, column: pa.Array) -> pa.Array:
        if pa.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0:
            column = pc.struct_field(column, "bytes")
        if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
            raise InputError(
                f"{self._name}: column {self._image_column!r} is {column.type}; expected encoded images as binary, or "
                f"a struct with a binary field 'bytes'"
            )
        return column

    def labels(self) -> pa.Array:
        column = self._read(lambda: self._file.read(columns=[self._label_column]))
        if not pa.types.is_integer(column.type):
            raise InputError(f"{self._name}: column {self._label_column!r} is {column.type}; expected integers")
        return column

    def where(self, row: int) -> str:
        return f"{self._name} row {row}"

    def class_names(self) -> tuple[str, ...] | None:
        """The classes by name, where the library ``datasets`` wrote them into the file's metadata."""
        written = (self._file.schema_arrow.metadata or {}).get(b"huggingface", b"{}")
        try:
            found = json.loads(written).get("info", {}).get("features", {}).get(self._label_column, {}).get("names")
            names = tuple(found or ())
            if isinstance(found, str) or any(not isinstance(it, str) for it in names) or len({*names}) < len(names):
                raise ValueError("the names of the classes are no list of different texts")
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(
                f"{self._name}: its metadata 'huggingface' is not what the library datasets writes ({error}). Write "
                f"the file again with it, or without this metadata."
            ) from error
        return names or None

    def _read(self, read: Callable[[], pa.Table]) -> pa.Array:
        try:
            return read().column(0).combine_chunks()
        except _BROKEN as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> InputError:
        return InputError(f"{self._name}: damaged Parquet ({error}). Restore or remove the file.")
