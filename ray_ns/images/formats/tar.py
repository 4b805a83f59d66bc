"""WebDataset tars: members that share a key are one sample; its image is read where it lies, nothing is unpacked.

The headers are read by a parser of our own that is strict: Python's ``tarfile`` reads many archives that were cut or
overwritten as shorter ones, and an image that is lost must not be lost in silence. POSIX (ustar, pax) and GNU archives
are read (https://www.gnu.org/software/tar/manual/html_node/Standard.html). A member's key is its path up to the first
dot of its file name; ``.cls`` holds the label as text; of the other members only images count.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa

from ray_ns.errors import InputError
from ray_ns.images.decode import MAX_BYTES, stand_in
from ray_ns.images.formats import ranges
from ray_ns.images.formats.place import Place, Stat, is_hidden, is_image

GROUP_ROWS = 256
GROUP_WASTE = 2.0  # a whole group of small images is read with the headers between them
BLOCK = 512
BUFFER, LOCAL_BUFFER = 64 * 1024, 4 * BLOCK  # read for headers at once; a disk is not asked for images between them
LABEL = "cls"
LABEL_BYTES, LABEL_DIGITS = 32, 9
HEADER_BYTES = 2**20  # of a long name or a pax header; real ones have some hundred
_SIZE = re.compile("[0-9]{1,18}")  # bytes of a member, in a pax header
_KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a pipe",
    b"S": "a sparse file",
}


@dataclass(frozen=True)
class Member:
    """A plain file in a tar: its name, and where its bytes are."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True)
class Index:
    """The images of a tar, in its order, with the label of each, null where there is none."""

    names: list[str]
    offsets: np.ndarray
    sizes: np.ndarray
    labels: pa.Array


class TarReader:
    """Reads one tar by runs of images. Opening reads all headers and labels, once per process. See ``place.Reader``."""

    reads_rows = True

    def __init__(self, place: Place, path: str, stat: Stat) -> None:
        self.bytes_read = 0
        self._place, self._name = place, place.name(path)
        try:
            self._file = place.open(path)
            self._index = _index(place.root, path, stat)
        except OSError as error:
            raise InputError(f"{self._name}: cannot be read ({error}). Restore or remove the file.") from error

    @property
    def group_rows(self) -> list[int]:
        total = len(self._index.names)
        return [min(GROUP_ROWS, total - begin) for begin in range(0, total, GROUP_ROWS)]

    def images(self, group: int, rows: np.ndarray | None = None) -> pa.Array:
        at = slice(group * GROUP_ROWS, (group + 1) * GROUP_ROWS) if rows is None else group * GROUP_ROWS + rows
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
        return self._index.labels

    def where(self, row: int) -> str:
        return f"{self._name}: {self._index.names[row]}"


@lru_cache(64)
def _index(root: str, path: str, stat: Stat) -> Index:
    place = Place.of(root)
    with place.open(path) as file:
        return _Headers(place.name(path), file, LOCAL_BUFFER if place.is_local else BUFFER).index()


class _Headers:
    """One pass over the headers of a tar."""

    def __init__(self, name: str, file: pa.NativeFile, buffer: int) -> None:
        self._name, self._file, self._buffer = name, file, buffer

    def index(self) -> Index:
        images: dict[str, Member] = {}
        labels: dict[str, int] = {}
        for member, start in self._members():
            folder, _, file = member.name.rpartition("/")
            stem, dot, extension = file.lower().partition(".")
            key = f"{folder}/{file[: len(stem)]}"
            if not dot or is_hidden(member.name):
                continue
            if extension == LABEL:
                if key in labels:
                    raise self._refused(member.name, "is there twice", "Give each sample a key of its own.")
                labels[key] = self._label(member, start)
            elif is_image(file):
                if key in images:
                    why = f"and {images[key].name} have the same key, {key.lstrip('/')}"
                    raise self._refused(member.name, why, "Give each image a key of its own.")
                images[key] = member
        orphans = labels.keys() - images.keys()
        if orphans:
            key = min(orphans).lstrip("/")
            raise self._refused(f"{key}.{LABEL}", "is the label of no image", f"Expected one beside it, {key}.jpg")
        found = list(images.values())
        return Index(
            [it.name for it in found],
            np.array([it.offset for it in found], np.int64),
            np.array([it.size for it in found], np.int64),
            pa.array([labels.get(key) for key in images], pa.int64()),
        )

    def _label(self, member: Member, start: bytes) -> int:
        try:
            text = start[: member.size].decode("ascii").strip()
            if member.size > LABEL_BYTES or len(text) > LABEL_DIGITS or not text.isdecimal():
                raise ValueError
            return int(text)
        except ValueError as error:
            found = start[: member.size]
            raise self._refused(member.name, f"holds {found!r}", "Expected a class number, such as 7.") from error

    def _members(self) -> Iterator[tuple[Member, bytes]]:
        """Every plain file, with its first bytes. ``InputError`` for an archive that is not whole and plain."""
        end = self._file.size()
        at = 0
        named: dict[str, str] = {}  # what the headers before a member say of it
        buffer, buffered = b"", 0
        while True:
            if at + 2 * BLOCK > buffered + len(buffer):
                buffer, buffered = self._file.read_at(min(self._buffer, max(0, end - at)), at), at
            header = buffer[at - buffered : at - buffered + BLOCK]
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
                yield Member(plain, at, size), buffer[at - buffered : at - buffered + LABEL_BYTES]
                named = {}
            elif kind in b"gK":
                pass  # a header that says nothing about a name
            elif kind in b"5V" or name.endswith("/"):
                named = {}
            else:
                what = _KINDS.get(kind, f"of the unknown kind {kind!r}")
                raise self._refused(name, f"is {what}", "Make the tar of plain files (tar --hard-dereference).")
            at += -(-size // BLOCK) * BLOCK

    def _check_end(self, at: int, end: int) -> None:
        """Raise ``InputError`` where something follows the end mark: most readers would not see it."""
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
        """A number of a header: octal text, or base 256 where GNU tar found no room for that."""
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
