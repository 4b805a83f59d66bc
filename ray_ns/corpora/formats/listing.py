"""Listing a place: its files, each once even if links lead to it again, and its folders."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pyarrow import fs

from ray_ns.corpora.formats.place import Place, Stat, is_hidden
from ray_ns.corpora.formats.remote import answered
from ray_ns.errors import InputError, of_system


@dataclass
class Listing:
    """Everything below a place except hidden files (``place.is_hidden``), by path below the root.

    ``links``: links that were followed; ``repeats``: links to what is counted already; ``broken``: links to nothing.
    """

    files: dict[str, Stat] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    repeats: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)


def listing(place: Place) -> Listing:
    """What lies below ``place``. Raises ``InputError`` if it, or a folder in it, cannot be listed."""
    try:
        return _local(place) if place.is_local else _remote(place)
    except OSError as error:
        known = of_system(error, error.filename or place.root, "listed")
        if isinstance(known, InputError):
            raise known from error
        raise InputError(f"{place.root}: cannot be listed ({error}). Give a folder of images.") from error
    except (UnicodeEncodeError, UnicodeDecodeError) as error:
        raise InputError(f"{os.fsencode(error.object)!r}: the name is not UTF-8. Rename the file.") from error


def folders(place: Place, below: str = "") -> list[str]:
    """The names of the folders right below a folder of ``place``, sorted. ``InputError`` if it cannot be listed."""
    selector = fs.FileSelector(f"{place.base}/{below}".rstrip("/") or "/")

    def ask() -> list[fs.FileInfo]:
        found: list[fs.FileInfo] = place.filesystem.get_file_info(selector)
        return found

    try:
        entries = ask() if place.is_local else answered(place.root, ask)
    except OSError as error:
        raise InputError(f"{place.name(below).rstrip('/')}: cannot be listed ({error}). Give a folder.") from error
    return sorted(it.base_name for it in entries if it.type == fs.FileType.Directory)


def _remote(place: Place) -> Listing:
    if answered(place.root, lambda: place.filesystem.get_file_info(place.base or "/")).type == fs.FileType.File:
        raise _is_a_file(place)
    found = Listing()
    below = fs.FileSelector(place.base, recursive=True)
    for entry in answered(place.root, lambda: place.filesystem.get_file_info(below), None):
        path = entry.path[len(place.base) :].lstrip("/")
        if not path or is_hidden(path):
            continue
        if entry.type == fs.FileType.File:
            found.files[path] = Stat(entry.size, entry.mtime_ns or 0)
        elif entry.type == fs.FileType.Directory:
            found.folders.add(path)
    return found


def _local(place: Place) -> Listing:
    """Real folders first, then links, so that a link to a file or folder below the same root is a repeat."""
    root = Path(place.base or "/")
    if root.is_file():
        raise _is_a_file(place)
    found = Listing()
    seen: set[tuple[int, int]] = set()  # devices and inodes of folders and, once there are links, of files
    links: list[str] = []
    _walk(root, "", found, seen, links)
    if links:
        seen |= {_identity((root / path).stat()) for path in found.files}
    while links:
        batch, links = sorted(links), []
        for path in batch:
            _follow(root, path, found, seen, links)
    found.files = dict(sorted(found.files.items()))
    return found


def _follow(root: Path, path: str, found: Listing, seen: set[tuple[int, int]], links: list[str]) -> None:
    """Add what the link ``path`` leads to, unless it is counted already; add links below it to ``links``."""
    try:
        state = (root / path).stat()
    except OSError:  # gone, or links in a circle
        found.broken.append(path)
        return
    if _identity(state) in seen:
        found.repeats.append(path)
        return
    found.links.append(path)
    if (root / path).is_dir():
        found.folders.add(path)
        files = set(found.files)
        _walk(root, path, found, seen, links)
        seen |= {_identity((root / file).stat()) for file in found.files.keys() - files}
    else:
        found.files[path] = Stat(state.st_size, state.st_mtime_ns)
        seen.add(_identity(state))


def _identity(state: os.stat_result) -> tuple[int, int]:
    return state.st_dev, state.st_ino


def _walk(root: Path, below: str, found: Listing, seen: set[tuple[int, int]], links: list[str]) -> None:
    """Add the real files and folders below ``below`` to ``found``, the links to ``links``."""
    left = [below]
    while left:
        folder = left.pop()
        identity = _identity(os.stat(root / folder))
        if identity in seen:
            continue
        seen.add(identity)
        for entry in _entries(root / folder):
            path = f"{folder}/{entry.name}".lstrip("/")
            path.encode()  # raises for a name that is not UTF-8, which could not be recorded
            if is_hidden(path):
                continue
            if entry.is_symlink():
                links.append(path)
            elif entry.is_dir():
                found.folders.add(path)
                left.append(path)
            elif entry.is_file():
                held = entry.stat()
                found.files[path] = Stat(held.st_size, held.st_mtime_ns)


def _entries(folder: Path) -> Iterator["os.DirEntry[str]"]:
    with os.scandir(folder) as entries:
        yield from entries


def _is_a_file(place: Place) -> InputError:
    return InputError(f"{place.root}: is a file. Give the folder it lies in, with nothing else in it.")
