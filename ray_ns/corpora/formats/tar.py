"""WebDataset tars: members that share a key are one sample. Images are read by offset; nothing is unpacked.

The headers are read by our own strict parser. Python's ``tarfile`` reads many archives that were cut or overwritten as
shorter ones, and images must not be lost silently. POSIX (ustar, pax) and GNU archives are read
(https://www.gnu.org/software/tar/manual/html_node/Standard.html). A member's key is its path up to the first dot of its
file name. Only images are read, and labels (``LABELS``) if they are needed: from ``.cls``, else ``.json``, else
``.txt``, else the folders in the tar, else the tar's own name.
"""

import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa

from ray_ns.corpora import origins
from ray_ns.corpora.formats import ranges
from ray_ns.corpora.formats.meaning import Meaning, in_one_form
from ray_ns.corpora.formats.place import BEGIN_BYTES, Place, Stat, UnlabelledError, check_begin, is_hidden, is_image
from ray_ns.corpora.splits import split_of
from ray_ns.errors import InputError
from ray_ns.images.decode import MAX_BYTES, stand_in

GROUP_ROWS = 256
GROUP_WASTE = 2.0  # for a whole group: small images are read with the headers between them
BLOCK = 512
BUFFER, LOCAL_BUFFER = (
    64 * 1024,
    4 * BLOCK,
)  # bytes read at once for headers; on a disk few, so as not to read the images between them
LABELS = ("cls", "json", "txt")
FOLDERS = "the folders in it"
LABEL_BYTES, LABEL_LETTERS, LABEL_DIGITS = {"cls": 400, "json": 2**20, "txt": 2**16}, 100, 9
CAPTIONS = 16  # more different texts than this, and than half of the images, are captions
HEADER_BYTES = 2**20  # at most, of a long name or a pax header; real ones have some hundred
_SIZE = re.compile("[0-9]{1,18}")  # bytes of a member, in a pax header
_KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a pipe",
    b"S": "a sparse file",
}
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".zip", ".tar.zst", ".tar.bz2", ".tar.xz", ".parquet")


@dataclass(frozen=True)
class Member:
    """A plain file in a tar: its name, and the offset and size of its bytes."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True)
class Index:
    """The images of a tar, in its order, with the label of each: numbers (int64) or names, null without one.

    ``source``: what holds the labels; None if nothing does or they are not needed.
    """

    names: list[str]
    offsets: np.ndarray
    sizes: np.ndarray
    labels: pa.Array
    source: str | None


class TarReader:
    """Reads one tar, a group of images at a time. Opening reads all headers and labels, once per process.

    See ``place.Reader``. ``label``: the key of the label in ``.json`` members, besides ``label`` and ``cls``; None if
    labels are not needed. ``root``: the folders above the class folders, ending in /, that all images of the corpus
    lie in. ``by_tar``: the tar's name is the label if nothing else is.
    """

    reads_rows = True

    def __init__(
        self, place: Place, path: str, stat: Stat, label: str | None, root: str = "", by_tar: bool = False
    ) -> None:
        self.bytes_read = 0
        self._place, self._path, self._name = place, path, place.name(path)
        self._root = root
        try:
            self._file = place.open(path)
            self._index = _index(place.root, path, stat, label)
        except OSError as error:
            raise InputError(f"{self._name}: cannot be read ({error}). Restore or remove the file.") from error
        self._bounds = ranges.groups(self._index.sizes.tolist(), GROUP_ROWS)
        self._class = (
            unicodedata.normalize("NFC", PurePosixPath(path).stem) if by_tar and self._index.source is None else None
        )

    @property
    def group_rows(self) -> list[int]:
        return [end - begin for begin, end in pairwise(self._bounds)]

    def images(self, group: int, rows: np.ndarray | None = None) -> pa.Array:
        begin, end = self._bounds[group : group + 2]
        at = slice(begin, end) if rows is None else begin + rows
        waste = GROUP_WASTE if rows is None else ranges.WASTE
        offsets, sizes = self._index.offsets[at], self._index.sizes[at]
        small = sizes <= MAX_BYTES
        try:
            images, read = ranges.read(self._place, self._file, offsets[small], sizes[small], waste)
        except OSError as error:
            raise InputError(f"{self._name}: cannot be read ({error}). Restore or remove the file.") from error
        self.bytes_read += read
        for row in np.flatnonzero(~small).tolist():
            images.insert(row, memoryview(stand_in(self.where(np.arange(len(self._index.names))[at][row]))))
        return ranges.binary(images)

    def labels(self) -> pa.Array:
        if self._class is not None:
            return pa.array([self._class] * len(self._index.names), pa.string())
        if self._index.source == FOLDERS:
            folders = (it.removeprefix(self._root).partition("/")[0] for it in self._index.labels.to_pylist())
            return pa.array(folders, pa.string())
        return self._index.labels

    def meaning(self) -> Meaning:
        """What its labels are."""
        found = self._index
        if not found.names:
            return Meaning(())
        texts = frozenset(found.labels.drop_null().to_pylist()) if pa.types.is_string(found.labels.type) else None
        said = ("labels are", f"{'numbers' if texts is None else 'names'}, from {found.source or 'nothing'}")
        return Meaning((said,), None, texts, found.source)

    def where(self, row: int) -> str:
        return f"{self._name}: {self._index.names[row]}"

    def origins(self, rows: np.ndarray) -> pa.Table:
        return origins.named(self._path, rows, [self._index.names[row] for row in rows.tolist()])


@lru_cache(64)
def _index(root: str, path: str, stat: Stat, label: str | None) -> Index:
    place = Place.of(root)
    with place.open(path) as file:
        return _Headers(place.name(path), file, LOCAL_BUFFER if place.is_local else BUFFER, label).index()


class _Headers:
    """One pass over the headers of a tar."""

    def __init__(self, name: str, file: pa.NativeFile, buffer: int, label: str | None) -> None:
        self._name, self._file, self._room, self._label_key = name, file, buffer, label
        self._buffer, self._buffered = b"", 0  # the offset where the buffer begins

    def index(self) -> Index:
        images: dict[str, Member] = {}
        labels: dict[str, dict[str, int | str | InputError | None]] = {extension: {} for extension in LABELS}
        first: str | None = None
        for member in self._members():
            folder, _, file = member.name.rpartition("/")
            stem, dot, extension = file.lower().partition(".")
            key = f"{folder}/{file[: len(stem)]}"
            if is_hidden(member.name):
                continue
            first = first or member.name
            if is_image(file):
                if key in images:
                    why = f"and {images[key].name} have the same key, {key.lstrip('/')}"
                    raise self._refused(member.name, why, "Give each image a key of its own.")
                images[key] = member
            elif dot and extension in labels and self._label_key is not None:
                if key in labels[extension]:
                    raise self._refused(member.name, "is there twice", "Give each sample a key of its own.")
                labels[extension][key] = self._label(member, extension)
        if not images and first is not None and first.endswith(ARCHIVES):
            mend = f"Unpack it once (tar xf) and give the folder with {first}."
            raise self._refused("no image but other archives", f"are in it ({first} ...)", mend)
        orphans = labels["cls"].keys() - images.keys()
        if orphans:
            key = min(orphans).lstrip("/")
            raise self._refused(f"{key}.cls", "is the label of no image", f"Expected one beside it, {key}.jpg")
        column, source = self._labels(images, labels)
        if pa.types.is_string(column.type):
            column = in_one_form(column)
        found = list(images.values())
        offsets = np.array([it.offset for it in found], np.int64)
        return Index([it.name for it in found], offsets, np.array([it.size for it in found], np.int64), column, source)

    def _labels(
        self, images: dict[str, Member], labels: dict[str, dict[str, int | str | InputError | None]]
    ) -> tuple[pa.Array, str | None]:
        """The label of each image, and what the labels come from."""
        if self._label_key is None:
            return pa.nulls(len(images), pa.int64()), None
        for extension in LABELS:
            found = [labels[extension].get(key) for key in images]
            given = [it for it in found if it is not None]
            wrong = next((it for it in given if isinstance(it, InputError)), None)
            if wrong is not None:
                raise wrong
            if given:
                break
        else:
            folders = [key.rpartition("/")[0] for key in images]
            inside = bool(folders) and all(folders)
            return pa.array(folders if inside else [None] * len(images), pa.string()), FOLDERS if inside else None
        texts = sorted({it for it in given if isinstance(it, str)})
        if not texts:
            return pa.array(found, pa.int64()), f".{extension}"
        number = next((it for it in given if isinstance(it, int)), None)
        if number is not None:
            mend = "Expected one or other."
            raise self._refused(f".{extension}", f"holds numbers ({number}) and names ({texts[0]!r})", mend)
        if extension == "txt" and len(texts) > max(CAPTIONS, len(given) / 2):
            why = f"holds {len(texts):,} different texts for {len(given):,} images, such as {texts[0]!r}"
            mend = "Are they captions? Give labels as .cls or in .json."
            raise UnlabelledError(f"{self._name}: .txt {why}. {mend}")
        return pa.array(found, pa.string()), f".{extension}"

    def _label(self, member: Member, extension: str) -> int | str | InputError | None:
        """A number or a name; None if a ``.json`` has none; or an error, to be raised only if the label is used."""
        try:
            if member.size > LABEL_BYTES[extension]:
                raise ValueError
            value: object = self._content(member).decode("utf-8-sig").strip()
            if extension == "json":
                fields = json.loads(str(value))
                keys = (self._label_key, "label", "cls")
                value = next((fields[key] for key in keys if fields.get(key) is not None), None)
                if value is None:
                    return None
            text = str(value)
            if isinstance(value, bool | dict | list) or not 0 < len(text) <= LABEL_LETTERS or not text.isprintable():
                raise ValueError
            if not (text.isascii() and text.isdecimal()):
                return text if isinstance(value, str) else _whole(value)
            if len(text) > LABEL_DIGITS:
                raise ValueError
            return int(text)
        except (ValueError, AttributeError, TypeError, OverflowError, RecursionError):
            found = self._content(replace(member, size=min(member.size, LABEL_LETTERS)))
            mend = "Expected a class number, such as 7, or a class name."
            return self._refused(member.name, f"holds {found!r}", mend)

    def _content(self, member: Member) -> bytes:
        begin = member.offset - self._buffered
        held = self._buffer[begin : begin + member.size]
        return held if len(held) == member.size else self._file.read_at(member.size, member.offset)

    def _members(self) -> Iterator[Member]:
        """Every plain file. Raises ``InputError`` for a damaged archive, or for members of other kinds."""
        end = self._file.size()
        at = 0
        named: dict[str, str] = {}  # what extra headers say about the next member
        while True:
            if at + 2 * BLOCK > self._buffered + len(self._buffer):
                self._buffer, self._buffered = self._file.read_at(min(self._room, max(0, end - at)), at), at
            header = self._buffer[at - self._buffered : at - self._buffered + BLOCK]
            if not at:
                check_begin(self._name, header, "tar")
            if len(header) < BLOCK:
                raise self._refused(f"byte {at}", "should be a header or the end mark", "The tar is cut: restore it.")
            if not any(header):
                self._check_end(at, end)
                return
            kind = header[156:157]
            size = self._number(header, 124, 12, at)
            if self._number(header, 148, 8, at) != sum(header) - sum(header[148:156]) + 8 * 32:
                raise self._refused(f"byte {at}", "is no header of a tar", "The tar is damaged: restore it.")
            name = named.get("path") or _name(header)
            size = size if kind in b"xgLK" else int(named.get("size", size))
            at += BLOCK
            if at + size > end:
                raise self._refused(name, f"has {size:,} bytes, the tar ends after {end - at:,}", "Restore the tar.")
            if kind in {b"x", b"L"}:
                if size > HEADER_BYTES:
                    raise self._refused(f"byte {at}", f"is a header of {size:,} bytes", "The tar is damaged.")
                text = self._file.read_at(size, at)
                named |= (
                    self._pax(text, at) if kind == b"x" else {"path": text.rstrip(b"\0").decode("utf-8", "replace")}
                )
            elif kind in {b"0", b"\0", b"7"} and not name.endswith("/"):
                plain = name.removeprefix("./")
                if name.startswith("/") or ".." in name.split("/"):
                    raise self._refused(name, "points out of the tar", "Make the tar with relative names.")
                yield Member(plain, at, size)
                named = {}
            elif kind in b"gK":
                pass  # headers that do not concern names
            elif kind in b"5V" or name.endswith("/"):
                named = {}
            else:
                what = _KINDS.get(kind, f"of the unknown kind {kind!r}")
                raise self._refused(name, f"is {what}", "Make the tar of plain files (tar --hard-dereference).")
            at += -(-size // BLOCK) * BLOCK

    def _check_end(self, at: int, end: int) -> None:
        """Raise ``InputError`` if something follows the end mark, which most readers would not see."""
        while at < end:
            if any(self._file.read_at(min(BUFFER, end - at), at)):
                raise self._refused(f"byte {at}", "goes on after the end mark", "Are these two tars? Give each a file.")
            at += BUFFER

    def _pax(self, text: bytes, at: int) -> dict[str, str]:
        """The records of a pax header, each ``length key=value newline``."""
        found = {}
        try:
            while text:
                length = int(text[: text.index(b" ")])
                key, _, value = text[:length].split(b" ", 1)[1].decode().partition("=")
                if length <= 0 or not value.endswith("\n"):
                    raise ValueError
                found[key], text = value.removesuffix("\n"), text[length:]
            if not _SIZE.fullmatch(found.get("size", "0")):
                raise ValueError
        except (ValueError, IndexError) as error:
            raise self._refused(f"byte {at}", "is no pax header", "The tar is damaged: restore it.") from error
        if any(key.startswith("GNU.sparse") for key in found):
            raise self._refused(found.get("path", f"byte {at}"), "is a sparse file", "Make the tar without --sparse.")
        return found

    def _number(self, header: bytes, begin: int, length: int, at: int) -> int:
        """A number in a header: octal text, or base 256 if it is too large for that (GNU tar)."""
        raw = header[begin : begin + length]
        if raw[0] == 0x80:
            return int.from_bytes(raw[1:], "big")
        digits = raw.strip(b" \0")
        if digits.strip(b"01234567"):
            raise self._refused(f"byte {at}", "is no header of a tar", "The tar is damaged: restore it.")
        return int(digits or b"0", 8)

    def _refused(self, what: str, why: str, mend: str) -> InputError:
        return InputError(f"{self._name}: {what} {why}. {mend}")


def _name(header: bytes) -> str:
    name = header[:100].split(b"\0")[0]
    if header[257:263] == b"ustar\0" and header[345]:
        name = header[345:500].split(b"\0")[0] + b"/" + name
    return name.decode("utf-8", "replace")


def _whole(value: object) -> int:
    """A JSON number as an integer. Raises ``ValueError`` if it is not whole or too large."""
    if not isinstance(value, float) or not value.is_integer() or not 0 <= value < 10**LABEL_DIGITS:
        raise ValueError
    return int(value)


def check_tars(place: Place, paths: Sequence[str]) -> None:
    """Raise ``InputError`` for the first file that is no tar in spite of its name. Reads their first bytes."""

    def check(path: str) -> None:
        try:
            with place.open(path) as file:
                check_begin(place.name(path), file.read(BEGIN_BYTES), "tar")
        except OSError as error:
            raise InputError(f"{place.name(path)}: cannot be read ({error}). Restore or remove the file.") from error

    for _ in ranges.each(place, check, paths):
        pass


def classes_of(root: str, paths: Sequence[str], found: Meaning) -> tuple[frozenset[str], str]:
    """The classes of tars whose labels are names, and the folders above the class folders, ending in /.

    If the tars hold no labels, each tar is one class, with its name. Raises ``InputError`` if their names cannot be
    classes.
    """
    texts = found.texts or frozenset()
    if found.source == FOLDERS:
        parts = [it.split("/") for it in texts]
        depth = 0  # of folders that all images share, except the last, which may be a class
        while all(len(it) > depth + 1 for it in parts) and len({it[depth] for it in parts}) == 1:
            depth += 1
        classes = frozenset(it[depth] for it in parts)
        if len(classes) > 1 and all(map(split_of, classes)):
            raise InputError(
                f"{root}: the folders in the tars, {', '.join(sorted(classes))}, are the parts of a data set and not "
                f"classes. Make tars of each part, in a folder of its own."
            )
        return classes, "".join(f"{it}/" for it in parts[0][:depth])
    if found.source is not None:
        return texts, ""
    names = [unicodedata.normalize("NFC", PurePosixPath(path).stem) for path in paths]
    numbers = sorted(int("".join(filter(str.isdecimal, it))[-LABEL_DIGITS:] or 0) for it in names)
    counted_up = len({re.sub(r"\d+", "", it) for it in names}) == 1 and numbers[-1] - numbers[0] < 2 * len(names)
    if len({*names}) < len(names) or counted_up or any(map(split_of, names)):
        raise UnlabelledError(
            f"{root}: {len(names):,} tars ({PurePosixPath(paths[0]).name} ...) hold images and no label. Expected .cls "
            f"or .json beside each image, a folder for each class in the tars, or a tar for each class, with its name."
        )
    return frozenset(names), ""
