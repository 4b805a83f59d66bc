"""Parquet shards: a column of encoded images, plain bytes or Hugging Face's struct {bytes, path}, and one of labels."""

import json
from collections.abc import Callable
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ray_ns.errors import InputError
from ray_ns.images.formats.place import Place


class ParquetReader:
    """Reads one Parquet file by row group. Opening reads the footer. See ``place.Reader``."""

    def __init__(self, place: Place, path: str, image_column: str, label_column: str | None) -> None:
        self._name = place.name(path)
        self._image_column, self._label_column = image_column, label_column
        try:
            self._file = pq.ParquetFile(
                f"{place.base}/{path}", filesystem=place.filesystem, page_checksum_verification=True
            )
        except (OSError, pa.ArrowInvalid) as error:
            raise InputError(f"{self._name}: cannot be read as Parquet ({error}). Mend or remove the file.") from error
        for column in (image_column, label_column):
            if column is not None and column not in self._file.schema_arrow.names:
                raise InputError(
                    f"{self._name}: no column {column!r}, found {', '.join(self._file.schema_arrow.names)}. Set "
                    f"data.image_column and data.label_column."
                )

    @cached_property
    def group_rows(self) -> list[int]:
        meta = self._file.metadata
        return [meta.row_group(group).num_rows for group in range(meta.num_row_groups)]

    def images(self, group: int) -> pa.Array:
        column = self._read(lambda: self._file.read_row_group(group, columns=[self._image_column]))
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
        features = json.loads((self._file.schema_arrow.metadata or {}).get(b"huggingface", b"{}"))
        names = features.get("info", {}).get("features", {}).get(self._label_column, {}).get("names")
        return tuple(names) if names else None

    def _read(self, read: Callable[[], pa.Table]) -> pa.Array:
        try:
            return read().column(0).combine_chunks()
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{self._name}: damaged Parquet ({error}). Restore or remove the file.") from error
