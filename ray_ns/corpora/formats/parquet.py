"""Parquet shards: a column of encoded images, plain bytes or Hugging Face's struct {bytes, path}, and one of labels.

Parquet is read by whole row groups, since its values lie in pages that only a decoder can find. In the shards of an
ingest (``corpora.pack``) an image is found by arithmetic. Their image column is required, uncompressed, without a
dictionary, and has one page per row group. In such a page each value follows the four bytes of its length
(https://parquet.apache.org/docs/file-format/data-pages/encodings/#plain-plain--0). Other columns hold each image's size
and CRC-32. The values end with the column chunk, so the sizes from ``i`` on tell where value ``i`` begins.
"""

import contextlib
import json
import posixpath
import unicodedata
import zlib
from collections.abc import Callable, Sequence
from functools import cached_property
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ray_ns.corpora import origins
from ray_ns.corpora.formats import ranges
from ray_ns.corpora.formats.meaning import SHOWN, Meaning, in_one_form
from ray_ns.corpora.formats.place import BEGIN_BYTES, Place, UnlabelledError, check_begin
from ray_ns.errors import InputError
from ray_ns.images.decode import MAX_BYTES, stand_in

SIZE, CRC32 = "image_size", "image_crc32"
LENGTH_BYTES = 4
BATCH_ROWS = 16  # rows read at once if an image in the group may be too large to hold many like it
EMPTY_CHUNK = 100  # bytes, about, of a column chunk with nulls only
MAX_GROUP_BYTES = 8 << 30  # of a row group's images, which are held in memory
MAX_ROWS = 2**32  # of a shard, because of the ImageId
PAGE_HEADER = 48  # bytes at most (measured: 25 to 41); a chunk with two pages has more

_BROKEN = (OSError, pa.ArrowException, ValueError, MemoryError)  # what pyarrow raises on a damaged file


class ParquetReader:
    """Reads one Parquet file by row group, or by row. Opening reads the footer. See ``place.Reader``."""

    def __init__(self, place: Place, path: str, image_column: str, label_column: str | None) -> None:
        self.bytes_read = 0
        self._place, self._path, self._name = place, path, place.name(path)
        self._image_column, self._label_column = image_column, label_column
        try:
            self._source = place.open(path)
            self._file = pq.ParquetFile(self._source, page_checksum_verification=True)
        except _BROKEN as error:
            with contextlib.suppress(OSError), place.open(path) as file:
                begin = file.read(BEGIN_BYTES)
                check_begin(self._name, b"" if begin.startswith(b"PAR1") else begin, "Parquet")
            raise InputError(
                f"{self._name}: cannot be read as Parquet ({error}). Repair or remove the file."
            ) from error
        self._schema = self._file.schema_arrow
        self._in_path = None if label_column in {None, *self._schema.names} else _partition(path, f"{label_column}=")
        self._check_columns()
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
    def _label_type(self) -> pa.DataType | None:
        """The type of the label column; None if labels are not asked for or come from the path."""
        if self._label_column is None or self._in_path is not None:
            return None
        kind = self._schema.field(self._label_column).type
        return kind.value_type if pa.types.is_dictionary(kind) else kind

    @cached_property
    def _leaves(self) -> dict[str, int]:
        """The numbers of the leaf columns by name; those of a struct are named struct.field."""
        schema = self._file.schema
        return {schema.column(leaf).path: leaf for leaf in range(len(schema))}

    def _check_columns(self) -> None:
        """Raise ``InputError`` if the columns are missing or have types that are not read."""
        image, label = self._image_column, self._label_column
        wanted = (image, label) if self._in_path is None else (image,)
        missing = next((it for it in wanted if it is not None and it not in self._schema.names), None)
        binary = [it.name for it in self._schema if _holds_bytes(it.type)]
        if missing is not None:
            known = [*self._schema.names[:SHOWN], "..."][: len(self._schema.names)]
            images = f"; of images may be {', '.join(binary[:SHOWN])}" if missing == image and binary else ""
            setting = "data.image_column" if missing == image else "data.label_column"
            kind_of_error = InputError if missing == image else UnlabelledError
            raise kind_of_error(
                f"{self._name}: no column {missing!r}, found {', '.join(known)}{images}. Set {setting}."
            )
        kind = self._schema.field(image).type
        if not _holds_bytes(kind):
            mend = f", or set data.image_column to one of {', '.join(binary[:SHOWN])}" if binary else ""
            why = " Paths and base64 are not followed." if _is_text(kind) else ""
            raise InputError(
                f"{self._name}: column {image!r} is {kind}; expected encoded images as binary, or a struct with a "
                f"binary field 'bytes'.{why} Write the files' bytes into it{mend}."
            )
        kind = self._label_type
        if kind is not None and not (_is_text(kind) or _is_number(kind)):
            raise InputError(
                f"{self._name}: column {label!r} is {kind}; expected one class per image, as integers or texts. Set "
                f"data.label_column, or write such a column."
            )

    def _check_rows(self) -> None:
        """Raise ``InputError`` if the footer's numbers of rows and of the columns' values differ."""
        meta, image = self._file.metadata, self._image_column
        leaf = self._leaves.get(image, self._leaves.get(f"{image}.bytes"))
        for group, rows in enumerate(self.group_rows):
            values = rows if leaf is None else meta.row_group(group).column(leaf).num_values
            if leaf is not None and meta.row_group(group).column(leaf).total_uncompressed_size > MAX_GROUP_BYTES:
                raise self._too_much(group)
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
        """Images of a packed shard, each read by its offset; None if another program has rewritten the file."""
        chunk = self._chunks(group, [self._image_column])[0]
        sizes, checksums = self._sizes(group)
        end = chunk.data_page_offset + chunk.total_compressed_size
        begins = end - np.cumsum((sizes + LENGTH_BYTES)[::-1])[::-1]
        plain = chunk.compression == "UNCOMPRESSED" and {*chunk.encodings} <= {"PLAIN", "RLE"}  # RLE: levels only
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
        """The sizes, int64, and the checksums of a group's images."""
        try:
            table = self._file.read_row_group(group, columns=[SIZE, CRC32], use_threads=False)
        except _BROKEN as error:
            raise self._damaged(error) from error
        self.bytes_read += sum(it.total_compressed_size for it in self._chunks(group, [SIZE, CRC32]))
        return table[SIZE].to_numpy().astype(np.int64), table[CRC32].to_numpy()

    def _chunks(self, group: int, columns: Sequence[str]) -> list[pq.ColumnChunkMetaData]:
        """The footer's entries for these columns of a group, with all fields of structs."""
        leaves = [leaf for path, leaf in self._leaves.items() if path in columns or path.partition(".")[0] in columns]
        return [self._file.metadata.row_group(group).column(leaf) for leaf in leaves]

    def _whole(self, group: int) -> pa.Array:
        chunks = self._chunks(group, [self._image_column])
        size = sum(it.total_uncompressed_size for it in chunks)
        again = self.group_rows[group] if any(it.has_dictionary_page for it in chunks) else 1
        if size > MAX_BYTES or size * again > MAX_GROUP_BYTES:  # values in a dictionary may repeat
            return self._sifted(group)
        column = self._read(lambda: self._file.read_row_group(group, columns=[self._image_column]))
        self.bytes_read += sum(it.total_compressed_size for it in chunks)
        return self._binary(column)

    def _sifted(self, group: int) -> pa.Array:
        """The images of a group in which some may exceed ``MAX_BYTES``, as large binary, read a few rows at a time."""
        row = sum(self.group_rows[:group])
        if self.group_rows[group] == 1:
            return pa.array([stand_in(self.where(row))], pa.large_binary())
        found: list[pa.Array] = []
        held = 0  # bytes
        try:
            for batch in self._file.iter_batches(BATCH_ROWS, [group], [self._image_column], use_threads=False):
                column = self._binary(batch.column(0)).cast(pa.large_binary())
                large = pc.fill_null(pc.greater(pc.binary_length(column), MAX_BYTES), False)
                names = [self.where(row + at) for at in np.flatnonzero(large.to_numpy(zero_copy_only=False)).tolist()]
                stands = pa.array(map(stand_in, names), pa.large_binary())
                found.append(pc.replace_with_mask(column, large, stands))
                row, held = row + len(column), held + found[-1].nbytes
                if held > MAX_GROUP_BYTES:
                    raise self._too_much(group)
        except _BROKEN as error:
            raise self._damaged(error) from error
        self.bytes_read += sum(it.total_compressed_size for it in self._chunks(group, [self._image_column]))
        return pa.concat_arrays(found)

    def _binary(self, column: pa.Array, paths: pa.Array | None = None) -> pa.Array:
        """The bytes of a column of images; images of which the column holds only a path are read from that file."""
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if pa.types.is_struct(column.type):
            paths = pc.struct_field(column, "path") if column.type.get_field_index("path") >= 0 else None
            column = pc.struct_field(column, "bytes")
        if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
            column = column.cast(pa.large_binary())
        if not column.null_count or paths is None:
            return column
        read = ranges.each(self._place, self._beside, pc.if_else(column.is_null(), paths, None).to_pylist())
        return pc.coalesce(column.cast(pa.large_binary()), pa.array(read, pa.large_binary()))

    def _beside(self, path: str | None) -> bytes | None:
        """The image file that a row names instead of holding it; None if it does not lie below the root."""
        for found in _below(self._place, self._path, path):
            try:
                with self._place.open(found) as file:
                    data: bytes = stand_in(found) if file.size() > MAX_BYTES else file.read()
                    return data
            except OSError:
                continue
        return None

    @cached_property
    def may_have_paths(self) -> bool:
        """True if images may lie in files of their own, which the rows name."""
        kind = self._schema.field(self._image_column).type
        return pa.types.is_struct(kind) and kind.get_field_index("path") >= 0

    def _check_paths(self) -> None:
        """Raise ``InputError`` if rows have paths instead of bytes, and the first path leads to no file."""
        leaf = self._leaves.get(f"{self._image_column}.bytes")
        if leaf is None or not self.may_have_paths or not self._file.metadata.num_rows:
            return
        chunk = self._file.metadata.row_group(0).column(leaf)
        rows, found = self.group_rows[0], chunk.statistics
        has_none = chunk.total_uncompressed_size < rows + EMPTY_CHUNK if found is None else found.null_count == rows
        if not has_none:
            return
        paths = self._read(lambda: self._file.read_row_group(0, columns=[f"{self._image_column}.path"]))
        path = pc.struct_field(paths, "path")[0].as_py()
        if self._beside(path) is None:
            raise InputError(
                f"{self.where(0)}: has no bytes, only the path {path!r}, and there is no such file below "
                f"{self._place.root}. Embed the bytes: datasets.table.embed_table_storage, or write "
                f"open(path, 'rb').read() into 'bytes'."
            )

    def labels(self) -> pa.Array:
        if self._in_path is not None:
            number = self._in_path.isdecimal()
            value = pa.scalar(int(self._in_path)) if number else pa.scalar(unicodedata.normalize("NFC", self._in_path))
            return pa.array([value.as_py()] * self._file.metadata.num_rows, value.type)
        column = self._read(lambda: self._file.read(columns=[self._label_column]))
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if _is_text(column.type):
            return in_one_form(self._read(lambda: pa.table([column.cast(pa.string())], ["label"])))
        if pa.types.is_integer(column.type):
            return column
        try:
            return column.cast(pa.int64())
        except pa.ArrowInvalid as error:
            raise InputError(
                f"{self._name}: column {self._label_column!r} is {column.type} and not all of it whole ({error}). "
                f"Expected one class per image, as integers or texts."
            ) from error

    def meaning(self) -> Meaning:
        """The types of its columns, the names of its classes, and its labels if they are names."""
        self._check_paths()
        bare = "binary" if not pa.types.is_struct(self._schema.field(self._image_column).type) else "a struct"
        image = (f"column {self._image_column!r} is", bare)
        if self._label_column is None:
            return Meaning((image,))
        in_names = not self._in_path.isdecimal() if self._in_path is not None else _is_text(self._label_type)
        texts = frozenset(pc.unique(self.labels()).drop_null().to_pylist()) if in_names else None
        kind = "numbers" if texts is None else "names"
        said = (image, (f"column {self._label_column!r} is of", kind))
        return Meaning(said, self.class_names() if texts is None else None, texts)

    def where(self, row: int) -> str:
        return f"{self._name} row {row}"

    def origins(self, rows: np.ndarray) -> pa.Table:
        leaf = self._source_leaf
        if leaf is None or not len(rows):
            return origins.named(self._path, rows, numbered=True)
        groups, at = origins.within_groups(rows, self.group_rows)
        column = self._read(lambda: self._file.read_row_groups(groups, columns=[leaf], use_threads=False))
        column = pc.struct_field(column, "path") if pa.types.is_struct(column.type) else column
        return origins.named(self._path, rows, numbered=True, sources=column.take(at).cast(pa.string()))

    @cached_property
    def _source_leaf(self) -> str | None:
        """The leaf column that names each image: where it lay before it was packed, or the path beside its bytes."""
        leaf = "source" if {"sha256", "source"} <= {*self._schema.names} else f"{self._image_column}.path"
        name, _, inner = leaf.partition(".")
        if leaf not in self._leaves:
            return None
        kind = self._schema.field(name).type
        kind = kind.field(inner).type if inner else kind
        return leaf if _is_text(kind) and not pa.types.is_binary(kind) else None

    def class_names(self) -> tuple[str, ...] | None:
        """The names of the classes, if the library ``datasets`` wrote them into the file's metadata."""
        written = (self._file.schema_arrow.metadata or {}).get(b"huggingface", b"{}")
        try:
            found = json.loads(written).get("info", {}).get("features", {}).get(self._label_column, {}).get("names")
            names = tuple(found or ())
            if isinstance(found, str) or any(not isinstance(it, str) for it in names):
                raise ValueError("the names of the classes are no list of texts")
            names = tuple(unicodedata.normalize("NFC", it) for it in names)
            if len({*names}) < len(names):
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

    def _too_much(self, group: int) -> InputError:
        return InputError(
            f"{self._name}: row group {group} holds more than {MAX_GROUP_BYTES >> 30} GB of images and is read at "
            f"once. Write the file again in smaller ones: pyarrow.parquet.write_table(..., row_group_size=1000)."
        )

    def _damaged(self, error: Exception) -> InputError:
        return InputError(f"{self._name}: damaged Parquet ({error}). Restore or remove the file.")


def holds_paths(place: Place, path: str, image_column: str) -> bool:
    """True if a file's images may be files beside it: its image column is a struct with a path."""
    reader = ParquetReader(place, path, image_column, None)
    return reader.may_have_paths


def _holds_bytes(kind: pa.DataType) -> bool:
    """True for a type that a column of images may have."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_struct(kind):
        at = kind.get_field_index("bytes")
        return at >= 0 and _holds_bytes(kind.field(at).type) and not pa.types.is_struct(kind.field(at).type)
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
    return any(test(kind) for test in tests)


def _is_text(kind: pa.DataType | None) -> bool:
    """True for the type of labels that are names: text, or text that a program wrote as bytes."""
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_binary)
    return kind is not None and any(test(kind) for test in tests)


def _is_number(kind: pa.DataType) -> bool:
    tests = (pa.types.is_integer, pa.types.is_boolean, pa.types.is_floating, pa.types.is_decimal)
    return any(test(kind) for test in tests)


def _partition(path: str, key: str) -> str | None:
    """The value of a column that is only in a folder's name, as Hive and Spark do: 3 for label=3/part-0.parquet."""
    found = next((part for part in path.split("/")[:-1] if part.startswith(key)), None)
    value = None if found is None else unquote(found.removeprefix(key))
    return None if value in {None, "", "__HIVE_DEFAULT_PARTITION__"} else value


def _below(place: Place, shard: str, path: str | None) -> list[str]:
    """Where a file may lie that a shard names: relative to the shard's folder, or to the root."""
    if not path or "://" in path or "\0" in path:
        return []
    base = f"{place.base}/"
    if path.startswith("/"):
        return [posixpath.normpath(path.removeprefix(base))] if posixpath.normpath(path).startswith(base) else []
    tries = (posixpath.normpath(posixpath.join(posixpath.dirname(shard), path)), posixpath.normpath(path))
    return [it for it in dict.fromkeys(tries) if not it.startswith(("/", ".."))]
