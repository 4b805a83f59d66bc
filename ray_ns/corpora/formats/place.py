"""Places: a path or URL as a pyarrow filesystem, and which kind of corpus its files are."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np
import pyarrow as pa
from pyarrow import fs

from ray_ns.corpora.formats import remote
from ray_ns.errors import InputError

# Suffixes of image files. Formats that ``decode`` does not read are among them: they are quarantined, not overlooked.
IMAGE_SUFFIXES = frozenset(
    ("jpg", "jpeg", "jpe", "jfif", "png", "apng", "webp", "gif", "bmp", "tif", "tiff", "avif", "heic")
)
PARQUET = (".parquet", ".parq", ".pq")
DELTA = "_delta_log/"
# Other things that people keep images in, by suffix, and how to convert them.
_UNREAD = [
    (re.compile(pattern, re.IGNORECASE), mend)
    for pattern, mend in (
        (
            r"\.t(ar\.)?(gz|zst|bz2|xz)$|\.(zip|7z|rar)$",
            "Packed archives cannot be read in places: unpack them, to .tar at least",
        ),
        (
            r"\.arrow$",
            "Arrow files of the library datasets become Parquet with datasets.load_from_disk('FOLDER')"
            ".to_parquet('images.parquet'), others with pyarrow.feather.read_table and pyarrow.parquet.write_table",
        ),
        (r"\.feather$", "Make Parquet of it: pandas.read_feather('FILE').to_parquet('images.parquet')"),
        (
            r"\.lance(/|$)",
            "Make Parquet of it: pyarrow.parquet.write_table(lance.dataset('FOLDER').to_table(), 'images.parquet')",
        ),
        (
            r"tfrecords?(\b|-|$)",
            "TFRecords are not read: write image and label of each record into a tar, as 0.jpg and "
            "0.cls (webdataset.TarWriter)",
        ),
        (r"\.l?mdb$", "LMDB is not read: write its images into a tar, as 0.jpg and 0.cls (webdataset.TarWriter)"),
        (
            r"\.(h5|hdf5|npz|npy|mat|pkl|pickle|pt|pth|rec|beton|bin|ubyte)$",
            "Arrays are not read: write each as an image "
            "file into a folder of its class (PIL.Image.fromarray(array).save)",
        ),
        (r"\.(csv|jsonl?|tsv|xlsx?)$", "A table alone is not read: the images it lists must lie below the same folder"),
    )
]


class Kind(StrEnum):
    """The kinds of corpora. FOLDER: image files in class folders or a pool; CSV: image files listed in a table."""

    PARQUET = "parquet"
    TAR = "tar"
    FOLDER = "folder"
    CSV = "csv"


_IN_WORDS = {Kind.PARQUET: "Parquet shards", Kind.TAR: "tars", Kind.FOLDER: "image files"}


_UNPACKED = "Only a plain tar can be read in places: {} -dc FILE > PLAIN.tar"
# First bytes of files that have a wrong suffix.
_OTHERS = {
    b"\x1f\x8b": f"gzip. {_UNPACKED.format('gzip')}",
    b"\x28\xb5\x2f\xfd": f"zstd. {_UNPACKED.format('zstd')}",
    b"BZh": f"bzip2. {_UNPACKED.format('bzip2')}",
    b"\xfd7zXZ\0": f"xz. {_UNPACKED.format('xz')}",
    b"PK\3\4": "a zip. Unpack it: unzip -d FOLDER FILE",
    b"7z\xbc\xaf": "7z. Unpack it: 7z x -oFOLDER FILE",
    b"Rar!": "rar. Unpack it: unrar x FILE FOLDER/",
    b"PAR1": "Parquet. Rename it to .parquet",
    b"ARROW1": "Arrow. Make Parquet of it: pyarrow.feather.read_table and pyarrow.parquet.write_table",
    b"version https://git-lfs": "a Git LFS pointer, a note of where the file lies. Fetch the file: git lfs pull",
}
BEGIN_BYTES = 32


class UnlabelledError(InputError):
    """Labels are needed and there are none."""


@dataclass(frozen=True)
class Stat:
    """A file's size in bytes and mtime in ns, by which it is recognised again."""

    size: int
    stamp: int


class Reader(Protocol):
    """Reads one shard. Rows are numbered from 0 through all groups; a group is read at once.

    ``bytes_read``: bytes of the shard that ``images`` has read so far, with those of rows that were not asked for and
    without what opening reads (footer, headers).
    """

    bytes_read: int

    @property
    def reads_rows(self) -> bool:
        """True if ``images`` of some rows reads little more; false if it reads the whole group."""

    @property
    def group_rows(self) -> list[int]:
        """Rows of each group."""

    def images(self, group: int, rows: np.ndarray | None = None) -> pa.Array:
        """The encoded images of a group, as an Arrow array of (large) binary; null for a row without one.

        ``rows``: only these, int64 ascending, numbered from 0 in the group.
        """

    def labels(self) -> pa.Array:
        """The label of every row, as an Arrow array of integers; null for a row without one."""

    def where(self, row: int) -> str:
        """The name of a row, for a person."""

    def origins(self, rows: np.ndarray) -> pa.Table:
        """The names of ``rows`` (int64 ascending), for a program: the columns of ``corpora.origins``."""


@dataclass(frozen=True)
class Place:
    """A folder: as the user wrote it, and as its filesystem names it.

    ``filesystem`` is for listing and fails soon if there is no answer. ``reading`` is the same, with patient retries.
    """

    root: str
    filesystem: fs.FileSystem
    base: str
    reading: fs.FileSystem

    @classmethod
    def of(cls, root: str) -> "Place":
        """The place of a path or URL. Raises ``InputError`` for a URL that cannot be read or does not answer."""
        if "\0" in root or any("\ud800" <= it <= "\udfff" for it in root):
            raise InputError(f"{root}: cannot be a path (a NUL, or not UTF-8). Rename the folder, or give another.")
        if root.startswith("s3://") and not root.removeprefix("s3://").partition("/")[0]:
            raise InputError(f"{root}: names no bucket. Write s3://bucket/folder.")
        if "://" not in root:
            disk = fs.LocalFileSystem()
            return cls(root, disk, root.rstrip("/"), disk)
        filesystem, base = remote.filesystem(root)
        return cls(root, filesystem, base.rstrip("/"), remote.patient(filesystem))

    @property
    def is_local(self) -> bool:
        """True for a local filesystem; on others each read is a request over a network."""
        return isinstance(self.filesystem, fs.LocalFileSystem)

    def name(self, path: str) -> str:
        """A file's full name, for a person."""
        return f"{self.root}/{path}"

    def open(self, path: str) -> pa.NativeFile:
        """A file, for reading at any offset. Raises ``OSError``."""
        return self.reading.open_input_file(f"{self.base}/{path}")


def check_begin(name: str, begin: bytes, kind: str) -> None:
    """Raise ``InputError`` if a file that should be of ``kind`` begins like another format."""
    other = next((mend for magic, mend in _OTHERS.items() if begin.startswith(magic)), None)
    if other is not None:
        raise InputError(f"{name}: is no {kind} but {other}.")


def is_hidden(path: str) -> bool:
    """True for files that systems make: .DS_Store, ._x.jpg, .git/, __MACOSX/."""
    return any(part.startswith(".") or part == "__MACOSX" for part in path.split("/"))


def is_left_over(path: str) -> bool:
    """True for files that Spark and Hive leave beside their Parquet files: _temporary/, _metadata."""
    return any(part.startswith("_") for part in path.split("/"))


def is_image(path: str) -> bool:
    """True if the name is that of an image file."""
    return path.rpartition(".")[2].lower() in IMAGE_SUFFIXES


def recognise(
    root: str,
    files: Iterable[str],
    holds_paths: Callable[[str], bool] = lambda _: False,
    sniff: Callable[[list[str]], set[str]] = lambda _: set(),
) -> tuple[Kind, list[str]]:
    """The kind of corpus that these files are, and which of them belong to it, by path.

    ``holds_paths``: whether a Parquet file names image files: those are then not a corpus of their own.
    ``sniff``: which files without an image's suffix are images all the same.
    Raises ``InputError`` with what was found if there is no image, or more than one kind.
    """
    ordered = sorted(files)
    found = {
        Kind.PARQUET: [path for path in ordered if path.lower().endswith(PARQUET) and not is_left_over(path)],
        Kind.TAR: [path for path in ordered if path.lower().endswith(".tar")],
        Kind.FOLDER: [path for path in ordered if is_image(path)],
    }
    if not found[Kind.PARQUET] and not found[Kind.TAR]:
        sniffed = sniff([path for path in ordered if not is_image(path)])
        found[Kind.FOLDER] = [path for path in ordered if is_image(path) or path in sniffed]
    if any(path.startswith(DELTA) for path in ordered):
        raise InputError(
            f"{root}: is a Delta table, whose log says which of its files count. Write what it holds into a folder of "
            f"its own: deltalake.DeltaTable(...).to_pyarrow_dataset() and pyarrow.dataset.write_dataset."
        )
    stems = {path[:-4] for path in found[Kind.TAR]}
    if stems and all(path.rpartition(".")[0] in stems for path in found[Kind.PARQUET]):
        found[Kind.PARQUET] = []  # from img2dataset: metadata of the tar with the same name
    if found[Kind.PARQUET] and found[Kind.FOLDER] and holds_paths(found[Kind.PARQUET][0]):
        found[Kind.FOLDER] = []
    kinds = [kind for kind, paths in found.items() if paths]
    if len(kinds) > 1:
        held = " and ".join(f"{len(found[kind]):,} {_IN_WORDS[kind]} ({found[kind][0]})" for kind in kinds)
        raise InputError(f"{root}: holds {held}. A corpus is of one kind: put them into folders of their own.")
    if not kinds:
        others = f"found {', '.join(ordered[:3])}" + (" ..." if len(ordered) > 3 else "") if ordered else "it is empty"
        mend = next((f" {mend}." for pattern, mend in _UNREAD for path in ordered if pattern.search(path)), "")
        raise InputError(
            f"{root}: no *.parquet file, no *.tar and no image file (.jpg, .png, ...) in it; {others}.{mend}"
        )
    return kinds[0], found[kinds[0]]
