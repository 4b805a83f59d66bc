"""Files of tables that other programs read: CSV, JSON lines, Parquet. A file is there whole or not at all."""

import contextlib
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pc_csv
import pyarrow.parquet as pq

from ray_ns.errors import InputError, ResumableError, of_system
from ray_ns.export.texts import formula_safe, in_json

ROWS = 2**16  # written at once, and in a row group


class Sink(Protocol):
    """Takes tables of one schema. ``apostrophes``: cells that got one, since a spreadsheet would have run them."""

    @property
    def apostrophes(self) -> int: ...
    def write(self, table: pa.Table) -> None: ...
    def close(self) -> None: ...


class Csv:
    """RFC 4180 in UTF-8: every text is quoted, a null is an empty cell without quotes, lists are JSON."""

    def __init__(self, file: BinaryIO, schema: pa.Schema) -> None:
        self.apostrophes = 0
        fields = [pa.field(it.name, pa.string()) if pa.types.is_list(it.type) else it for it in schema]
        self._writer = pc_csv.CSVWriter(file, pa.schema(fields))

    def write(self, table: pa.Table) -> None:
        self._writer.write_table(pa.table(dict(zip(table.column_names, map(self._cells, table.columns), strict=True))))

    def close(self) -> None:
        self._writer.close()

    def _cells(self, column: pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
        if pa.types.is_list(column.type):
            return in_json(column)
        if not pa.types.is_string(column.type):
            return column
        safe, count = formula_safe(column)
        self.apostrophes += count
        return safe


class JsonLines:
    """One JSON object a line, in UTF-8."""

    apostrophes = 0

    def __init__(self, file: BinaryIO, schema: pa.Schema) -> None:
        self._file = file
        self._keys = [f'{", " if at else "{"}"{name}": ' for at, name in enumerate(schema.names)]

    def write(self, table: pa.Table) -> None:
        parts = [part for key, column in zip(self._keys, table.columns, strict=True) for part in (key, in_json(column))]
        lines = pc.binary_join_element_wise(*parts, "}\n", "", null_handling="replace", null_replacement="null")
        for chunk in lines.chunks if isinstance(lines, pa.ChunkedArray) else [lines]:
            self._file.write(pc.binary_join(pa.ListArray.from_arrays([0, len(chunk)], chunk), "")[0].as_buffer())

    def close(self) -> None:
        """Nothing is left to write."""


class Parquet:
    """Parquet with real lists; probabilities as float32, since not every program reads float16."""

    apostrophes = 0

    def __init__(self, file: BinaryIO, schema: pa.Schema) -> None:
        wide = {pa.list_(pa.float16()): pa.list_(pa.float32())}
        self._schema = pa.schema([it.with_type(wide.get(it.type, it.type)) for it in schema])
        self._writer = pq.ParquetWriter(file, self._schema, compression="zstd")

    def write(self, table: pa.Table) -> None:
        self._writer.write_table(table.cast(self._schema))

    def close(self) -> None:
        self._writer.close()


KINDS: dict[str, Callable[[BinaryIO, pa.Schema], Sink]] = {".csv": Csv, ".parquet": Parquet, ".jsonl": JsonLines}


def check(name: str) -> None:
    """Raise ``InputError`` where no file can come to lie at ``name``, or its suffix says no format that is written."""
    path = Path(name)
    if "://" in name or path.suffix.lower() not in KINDS:
        raise InputError(f"{name}: expected a file on this machine that ends in {', '.join(KINDS)}.")
    if path.is_dir():
        raise InputError(f"{name}: is a folder. Give the file to write.")
    if not path.parent.is_dir():
        raise InputError(f"{name}: there is no folder {path.parent}. Make it, or give another file.")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"{name}: the folder {path.parent} cannot be written. Give another file.")


@contextlib.contextmanager
def writing(name: str, schema: pa.Schema) -> Iterator[Sink]:
    """A sink for tables of ``schema`` that becomes the file ``name`` when the block ends without an error.

    Until then it lies beside it under another name, and what was there stays as it is.
    """
    check(name)
    path = Path(name)
    with whole(path) as file, contextlib.closing(KINDS[path.suffix.lower()](file, schema)) as sink:
        yield _Sliced(sink)


@contextlib.contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """A file that comes to lie at ``path`` when the block ends without an error, and is durable then."""
    temporary = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise of_system(error, path, "written") or ResumableError(f"{path}: cannot be written ({error}).") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


class _Sliced:
    """Hands tables on in slices of ``ROWS``, so that what a format makes of them is small."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    @property
    def apostrophes(self) -> int:
        return self._sink.apostrophes

    def write(self, table: pa.Table) -> None:
        for begin in range(0, table.num_rows, ROWS):
            self._sink.write(table.slice(begin, ROWS).combine_chunks())

    def close(self) -> None:
        self._sink.close()
