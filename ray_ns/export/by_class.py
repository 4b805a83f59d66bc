"""A folder with a sub-folder per class, and in it the images that got that label: linked, or copied."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ray_ns.corpora.corpus import Corpus, Shard, split_ids
from ray_ns.corpora.formats.place import BEGIN_BYTES, Kind, Place
from ray_ns.corpora.origins import within_groups
from ray_ns.errors import InputError
from ray_ns.export import class_folders
from ray_ns.export.labels import Labelled, Wanted
from ray_ns.seals import seal

How = Literal["link", "copy"]
MARK = ".ray-ns.json"  # says what has filled the folder, so that the same command can go on; hidden from readers
README = "README.md"
# Hugging Face's ``datasets`` would take names such as test-1.jpg for a split, and leave out all others.
CARD = """---
configs:
- config_name: default
  data_files: "*/*"
---
Images by the class that a network gave them (`ray-ns labels --by-class`). Nobody has checked these labels.
"""


class ByClass:
    """Takes tables of ``columns.SCHEMA`` and puts each labelled image into the folder of its class.

    What a killed command has put there is left as it is. ``images``: how many are there in the end, by class, int64.
    """

    apostrophes = 0

    def __init__(self, of: Labelled, folder: str, how: How, wanted: Wanted, classes: int) -> None:
        self._of, self._folder, self._how = of, Path(folder), how
        self.folders = class_folders.folders(of.names, classes)
        self.images = np.zeros(classes, np.int64)
        _check(of.pool, folder, how)
        mark = {"labels": of.labels.digest, "how": how, "least": wanted.least, "selected": wanted.selected}
        _begin(self._folder, seal(mark))

    def write(self, table: pa.Table) -> None:
        """Put the images of ``table`` that have a label where they belong."""
        table = table.filter(table["label"].is_valid())
        labels = table["label"].to_numpy()
        for label in np.unique(labels).tolist():
            (self._folder / self.folders[label]).mkdir(exist_ok=True)
        self.images += np.bincount(labels, minlength=len(self.images))
        put = self._link if self._how == "link" else self._copy
        put(table, [self._folder / self.folders[label] for label in labels.tolist()])

    def close(self) -> None:
        """Say to other programs what the folder is."""
        (self._folder / README).write_text(CARD)

    def notes(self) -> Iterator[str]:
        """What a user should know of the folder, a line each."""
        names = self._of.names or self.folders
        empty = [names[label] for label in np.flatnonzero(self.images == 0).tolist()]
        if empty:
            yield f"classes without an image here, and so without a folder: {_some(empty)}."
        renamed = [f"{name!r}: {it!r}" for name, it in zip(names, self.folders, strict=True) if name != it]
        if renamed:
            yield f"classes whose names cannot be those of folders, and theirs: {_some(renamed)}."

    def _link(self, table: pa.Table, folders: Sequence[Path]) -> None:
        paths = table["path"].to_pylist()
        for path, image_id, folder in zip(paths, table["image_id"].to_pylist(), folders, strict=True):
            name = Path(path).name
            begin = b"" if name.rpartition(".")[2].lower() in class_folders.SUFFIXES else _begin_of(path)
            target = folder / class_folders.file(name, image_id, begin)
            if not target.is_symlink():
                os.symlink(os.path.abspath(path), target)

    def _copy(self, table: pa.Table, folders: Sequence[Path]) -> None:
        names, ids = own_names(table), table["image_id"].to_pylist()
        for at, image in images_of(self._of.pool, np.array(ids, np.int64)):
            data = image.as_buffer()
            target = folders[at] / class_folders.file(names[at], ids[at], data[:BEGIN_BYTES].to_pybytes())
            if target.exists():
                continue
            temporary = folders[at] / f".{ids[at]}.part"
            temporary.write_bytes(data)
            os.replace(temporary, target)


def own_names(table: pa.Table) -> list[str]:
    """What each image was called where it lies, or lay before it was packed: the last part of its path."""
    rows = pc.binary_join_element_wise(
        pc.replace_substring_regex(table["path"], r"\.[^./]*$", ""), table["row"].cast(pa.string()), "-"
    )
    names = pc.coalesce(table["source"], table["member"], rows, table["path"])
    return [it.rpartition("/")[2] for it in names.to_pylist()]


def images_of(pool: Corpus, ids: np.ndarray) -> Iterator[tuple[int, pa.Scalar]]:
    """The bytes of the images ``ids`` (int64, ascending), each with its place in ``ids``; a group is read at once."""
    ordinals, rows = split_ids(ids)
    for ordinal in np.unique(ordinals).tolist():
        begin, end = np.searchsorted(ordinals, [ordinal, ordinal + 1])
        yield from ((begin + at, image) for at, image in _of_shard(pool, pool.shard(ordinal), rows[begin:end]))


def _of_shard(pool: Corpus, shard: Shard, rows: np.ndarray) -> Iterator[tuple[int, pa.Scalar]]:
    reader = pool.open(shard)
    ends = np.cumsum(reader.group_rows)
    groups, _ = within_groups(rows, reader.group_rows)
    for group in groups:
        first = ends[group] - reader.group_rows[group]
        begin, end = np.searchsorted(rows, [first, ends[group]])
        yield from enumerate(reader.images(group, rows[begin:end] - first), begin)


def _check(pool: Corpus, folder: str, how: How) -> None:
    """Raise ``InputError`` where the images of ``pool`` cannot be put into ``folder`` in this way."""
    if "://" in folder:
        raise InputError(f"--by-class {folder}: expected a folder on this machine.")
    local = Place.of(pool.root).is_local
    if how == "link" and (pool.kind is not Kind.FOLDER or not local):
        what = "are not files of their own" if pool.kind is not Kind.FOLDER else "are not on this machine"
        raise InputError(f"--link: the images of {pool.root} {what}. Use --copy.")
    root = Path(os.path.realpath(Place.of(pool.root).base or "/")) if local else None
    if root is not None and Path(os.path.realpath(folder)).is_relative_to(root):
        raise InputError(
            f"--by-class {folder}: lies in the pool {pool.root}, and would become part of it. Give another."
        )


def _begin(folder: Path, mark: bytes) -> None:
    """Make the folder and mark it. ``InputError`` where it holds anything that the same command has not put there."""
    folder.mkdir(parents=True, exist_ok=True)
    there = folder / MARK
    if there.exists() and there.read_bytes() != mark:
        raise InputError(f"--by-class {folder}: holds other labels, or asked for otherwise. Give another folder.")
    if not there.exists():
        held = next(folder.iterdir(), None)
        if held is not None:
            raise InputError(f"--by-class {folder}: is not empty ({held.name}). Give an empty folder, or a new one.")
        there.write_bytes(mark)


def _begin_of(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(BEGIN_BYTES)


def _some(words: Sequence[str]) -> str:
    return ", ".join(words[:10]) + (f" and {len(words) - 10:,} more" if len(words) > 10 else "")
