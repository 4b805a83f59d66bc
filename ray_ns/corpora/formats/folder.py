"""Folders of image files: shards are runs of files in path order, recorded when the run begins.

A shard's ``files`` is a text with one line per file: size, mtime, label and path. So a label, from a folder's name or
a table, cannot change under a run.
"""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa

from ray_ns.corpora import origins
from ray_ns.corpora.formats import ranges
from ray_ns.corpora.formats.place import BEGIN_BYTES, Kind, Place, Stat, UnlabelledError
from ray_ns.corpora.formats.table import Table, labels_of
from ray_ns.corpora.found import NOTES, by_suffix
from ray_ns.errors import InputError
from ray_ns.images.decode import MAX_BYTES, READ, stand_in

SHARD_FILES = 1024
GROUP_ROWS = 256
MAX_FILES = 1_000_000
SNIFFED = 1000  # remote files opened to see whether they are images; each is a request
SEPARATORS = {"\t", "\n"}


@dataclass(frozen=True)
class File:
    """One image file; ``label``: its class folder's name or what a table says, empty in a pool."""

    path: str
    size: int
    stamp: int
    label: str


def pack(files: Iterable[File]) -> str:
    """``files`` as text."""
    return "\n".join(f"{it.size}\t{it.stamp}\t{it.label}\t{it.path}" for it in files)


def unpack(text: str) -> list[File]:
    """The inverse of ``pack``."""
    rows = (line.split("\t") for line in text.split("\n"))
    return [File(path, int(size), int(stamp), label) for size, stamp, label, path in rows]


def list_files(
    place: Place, stats: Mapping[str, Stat], paths: Sequence[str], table: Table | None, labelled: bool
) -> list[File]:
    """The image files of a corpus by path, with labels from ``table`` or from their folders' names.

    Raises ``InputError`` if there are too many, a name holds a tab or a line break, an image is in no class folder, or
    the table does not fit.
    """
    if len(paths) > MAX_FILES:
        raise InputError(
            f"{place.root}: {len(paths):,} image files; a folder is read as it is up to {MAX_FILES:,}. Pack it first: "
            f"ray-ns ingest {place.root} DESTINATION"
        )
    odd = next((path for path in paths if SEPARATORS & {*path}), None)
    if odd is not None:
        raise InputError(f"{place.root}: {odd!r} has a tab or a line break in its name. Rename the file.")
    if table is not None:
        labels = labels_of(place, table, paths)
    elif labelled:
        loose = next((path for path in paths if "/" not in path), None)
        if loose is not None:
            raise UnlabelledError(
                f"{place.root}: {loose} lies in no class folder. Expected one sub-folder per class, or "
                f"labels.csv with the columns file and label."
            )
        labels = {path: unicodedata.normalize("NFC", path.partition("/")[0]) for path in paths}
    else:
        labels = dict.fromkeys(paths, "")
    return [File(path, stats[path].size, stats[path].stamp, labels[path]) for path in sorted(labels)]


def class_names(files: Iterable[File], kind: Kind) -> tuple[str, ...] | None:
    """The classes of labelled files by number; None if a table's labels are numbers.

    Names are sorted as text; as numbers if all of them are numbers.
    """
    names = {it.label for it in files}
    numbers = all(name.isdecimal() for name in names)
    if kind is Kind.CSV and numbers:
        return None
    return tuple(sorted(names, key=lambda name: (int(name) if numbers else 0, name)))


def sniffed(place: Place, paths: Sequence[str]) -> set[str]:
    """The files whose first bytes are an image's. Files such as notes are not opened; of remote files only some are.

    Names such as ``photo.jpg?w=1200`` and names without a suffix come from crawlers and old data sets.
    """
    asked = [path for path in paths if by_suffix([path])[0][0] not in NOTES]
    if not place.is_local:
        asked = asked[:SNIFFED]

    def begins(path: str) -> bool:
        try:
            with place.open(path) as file:
                return READ.match(file.read(BEGIN_BYTES)) is not None
        except OSError:
            return False

    return {path for path, yes in zip(asked, ranges.each(place, begins, asked), strict=True) if yes}


class FolderReader:
    """Reads the files of one shard, a group at a time. See ``place.Reader``."""

    reads_rows = True

    def __init__(self, place: Place, files: str, names: tuple[str, ...] | None) -> None:
        self.bytes_read = 0
        self._place, self._files, self._names = place, unpack(files), names
        self._bounds = ranges.groups([it.size for it in self._files], GROUP_ROWS)

    @property
    def group_rows(self) -> list[int]:
        return [end - begin for begin, end in pairwise(self._bounds)]

    def images(self, group: int, rows: np.ndarray | None = None) -> pa.Array:
        files = self._files[self._bounds[group] : self._bounds[group + 1]]
        if rows is not None:
            files = [files[row] for row in rows.tolist()]
        self.bytes_read += sum(it.size for it in files if it.size <= MAX_BYTES)
        return pa.array(ranges.each(self._place, self._read, files), pa.large_binary())

    def labels(self) -> pa.Array:
        if self._names is None:
            return pa.array([int(it.label) for it in self._files], pa.int64())
        numbers = {name: number for number, name in enumerate(self._names)}
        unknown = next((it for it in self._files if it.label not in numbers), None)
        if unknown is not None:
            raise InputError(
                f"{self._place.name(unknown.path)}: class {unknown.label!r} is none of the labelled corpus, which has "
                f"{', '.join(self._names[:10])}{' ...' if len(self._names) > 10 else ''}"
            )
        return pa.array([numbers[it.label] for it in self._files], pa.int64())

    def where(self, row: int) -> str:
        return self._place.name(self._files[row].path)

    def origins(self, rows: np.ndarray) -> pa.Table:
        return origins.named([self._files[row].path for row in rows.tolist()], rows)

    def _read(self, file: File) -> bytes:
        name = self._place.name(file.path)
        if file.size > MAX_BYTES:
            return stand_in(name)
        try:
            with self._place.open(file.path) as opened:
                data: bytes = opened.read()
        except OSError as error:
            raise InputError(f"{name}: cannot be read ({error}). Put the same file back.") from error
        if len(data) != file.size:
            raise InputError(
                f"{name} has changed ({file.size} -> {len(data)} bytes) since this run first saw it. Put the same file "
                f"back, or start a new run with another run.dir."
            )
        return data
