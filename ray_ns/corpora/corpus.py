"""Corpora: ordered lists of shards of encoded images. A shard is a Parquet file, a tar or a run of image files.

An image's ``ImageId`` is an int64 made of its shard's ordinal and its row in the shard. A shard gets its ordinal when
it is first seen and keeps it, so ids never change. Paths and URLs are read through pyarrow's filesystems.
"""

import hashlib
from bisect import bisect_left
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ray_ns.corpora import pack
from ray_ns.corpora.formats import folder, meaning, table, tar
from ray_ns.corpora.formats.listing import Listing, listing
from ray_ns.corpora.formats.parquet import ParquetReader, holds_paths
from ray_ns.corpora.formats.place import Kind, Place, Reader, Stat, is_image, is_left_over, recognise
from ray_ns.corpora.formats.tar import TarReader
from ray_ns.corpora.found import Found, by_suffix
from ray_ns.errors import InputError

ROW_BITS = 32
Held = Stat | folder.File  # what identifies a file


def image_ids(ordinal: int, rows: np.ndarray) -> np.ndarray:
    """ImageIds (int64) of ``rows`` (integers, 0-based) of the shard ``ordinal``."""
    return (np.int64(ordinal) << ROW_BITS) | np.asarray(rows, np.int64)


def split_ids(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The shard ordinals and the rows (both int64) of ``ids``."""
    return ids >> ROW_BITS, ids & ((1 << ROW_BITS) - 1)


@dataclass(frozen=True)
class Shard:
    """A Parquet file, a tar, or a run of image files.

    A file is identified by its path below the root, its size in bytes and its mtime (ns). A run of image files is
    identified by ``path`` (its first and last file), ``size`` (the bytes of all), ``stamp`` (a number from the hash of
    ``files``) and ``files``, the list of them (``formats.folder``). ``kept`` is a bitmap in hex of the rows that belong
    to the corpus, empty if all do: the parts of a divided corpus share its shards, and rows that are left out are not
    numbered.
    """

    ordinal: int
    path: str
    size: int
    stamp: int
    files: str = field(default="", hash=False)
    kept: str = ""


@dataclass(frozen=True)
class Corpus:
    """Shards of one kind below one root; ``label_column`` is None for a pool.

    Attributes:
        names: the class names that labels stand for, if labels are names.
        texts: the different labels in Parquet files or tars, if they are names.
        folders: the folders within the tars that all images lie in.
        labels_from: where the labels of tars, or of files in a table, come from; for a person.
        touched: known files with another mtime and the same size, as (their shard's ordinal, path, mtime in ns). The
            caller has still to compare their contents.
    """

    root: str
    image_column: str
    label_column: str | None
    # Not in the hash, which is taken for every slice that is read: there may be many shards.
    shards: tuple[Shard, ...] = field(hash=False)
    kind: Kind = Kind.PARQUET
    names: tuple[str, ...] | None = None
    texts: frozenset[str] | None = None
    folders: str = ""
    labels_from: str | None = None
    found: Found = field(default=Found(), compare=False)
    touched: tuple[tuple[int, str, int], ...] = field(default=(), compare=False)

    @classmethod
    def scan(
        cls,
        root: str,
        image_column: str,
        label_column: str | None,
        known: Sequence[Shard] = (),
        names: tuple[str, ...] | None = None,
        compared: bool = False,
    ) -> "Corpus":
        """The corpus below ``root``: the ``known`` shards with their ordinals, then new ones by path.

        ``names``: the classes of another corpus, by whose numbers these labels go. ``compared``: the caller will
        compare the ``touched`` files; otherwise they are refused. Raises ``InputError`` if there is no such folder, it
        holds no image or several kinds of corpora, or a known file is gone or changed.
        """
        place = Place.of(root)
        listed = listing(place)
        stats = pack.shards_of(place, listed.files)
        kind, paths = recognise(
            root,
            stats,
            lambda path: holds_paths(place, path, image_column),
            lambda paths: folder.sniffed(place, paths),
        )
        ordinal = 1 + max((shard.ordinal for shard in known), default=-1)
        labels = None
        if kind in {Kind.PARQUET, Kind.TAR}:
            _check_root(root, [shard.path for shard in known], stats)
            seen = [(it.ordinal, it.path, Stat(it.size, it.stamp)) for it in known]
            touched = _touched(root, seen, stats, compared)
            old = {shard.path for shard in known}
            fresh = [Shard(0, path, stats[path].size, stats[path].stamp) for path in paths if path not in old]
        else:
            if label_column is not None:
                labels = table.find(place, stats, paths, image_column, label_column)
            kind = Kind.FOLDER if labels is None else Kind.CSV
            files = folder.list_files(place, stats, paths, labels, label_column is not None)
            now = {file.path: file for file in files}
            had = [(shard.ordinal, it.path, it) for shard in known for it in folder.unpack(shard.files)]
            _check_root(root, [path for _, path, _ in had], now)
            touched = _touched(root, had, now, compared)
            old = {path for _, path, _ in had}
            if label_column is not None and names is None:
                names = folder.class_names([it for _, _, it in had] or files, kind)
            left, size = [it for it in files if it.path not in old], folder.SHARD_FILES
            fresh = [_run_of(left[begin : begin + size]) for begin in range(0, len(left), size)]
        new = (replace(shard, ordinal=ordinal + number) for number, shard in enumerate(fresh))
        own = paths if kind in {Kind.PARQUET, Kind.TAR} else [file.path for file in files]
        table_path = (labels.path,) if labels is not None else ()
        found = _found(listed, (*own, *table_path), kind, label_column is not None, stats is not listed.files)
        corpus = cls(root, image_column, label_column, (*known, *new), kind, names, found=found, touched=touched)
        if labels is not None:
            corpus = replace(corpus, labels_from=f"{labels.path} (columns {labels.file} and {labels.label})")
        return corpus._with_meaning(len(known)) if kind in {Kind.PARQUET, Kind.TAR} else corpus

    def _with_meaning(self, known: int) -> "Corpus":
        """The same corpus with what its labels are. ``InputError`` for a shard that differs from the first.

        The first ``known`` shards were checked by an earlier scan. In a pool only new shards are checked.
        """
        if self.label_column is not None:
            looked = self.shards[:known] or self.shards
        elif self.kind is Kind.PARQUET:
            looked = (*self.shards[: min(known, 1)], *self.shards[known:])
        else:
            tar.check_tars(Place.of(self.root), [shard.path for shard in self.shards[known:]])
            return self
        shards = {shard.path: shard for shard in looked}
        found = meaning.held_together(
            Place.of(self.root), [*shards], lambda path: _file_reader(self, shards[path]).meaning()
        )
        if found is None or found.texts is None:
            return replace(self, labels_from=None if found is None else found.source)
        texts, folders = found.texts, ""
        if self.kind is Kind.TAR:
            texts, folders = tar.classes_of(self.root, [*shards], found)
        source = found.source or ("the names of the tars" if self.kind is Kind.TAR else None)
        names = self.names or meaning.class_names(texts)
        return replace(self, texts=texts, folders=folders, names=names, labels_from=source)

    @property
    def labels_are_names(self) -> bool:
        """True if labels are the names of classes, not their numbers."""
        return self.texts is not None or self.labels_lie_beside

    @property
    def labels_lie_beside(self) -> bool:
        """True if labels are recorded with the shards, not read from the files that hold the images."""
        return self.kind in {Kind.FOLDER, Kind.CSV}

    def shard(self, ordinal: int) -> Shard:
        """The shard that has this ordinal."""
        return self.shards[bisect_left(self.shards, ordinal, key=lambda it: it.ordinal)]

    def open(self, shard: Shard) -> "ShardReader":
        """Open a shard: its footer or headers are read now, its rows when asked for."""
        return ShardReader(self, shard)

    def labels(self, classes: int) -> list[np.ndarray]:
        """The labels (int64) of every shard, in order.

        Raises ``InputError`` for a null or a label outside 0 .. classes-1, naming the image.
        """
        found = []
        for shard in self.shards:
            reader = self.open(shard)
            column = reader.labels()
            signed = column.cast(pa.int64(), safe=False)  # an unsigned label too large for it comes out negative
            wrong = pc.or_kleene(pc.less(signed, 0), pc.greater_equal(signed, classes))
            row = pc.index(pc.fill_null(wrong, True), True).as_py()
            if row >= 0:
                raise InputError(
                    f"{reader.where(row)}: {self.label_column} is {column[row].as_py()}; expected "
                    f"0 .. {classes - 1} (data.classes = {classes})"
                )
            found.append(column.to_numpy(zero_copy_only=False).astype(np.int64))
        return found

    def class_names(self) -> tuple[str, ...] | None:
        """The names of this corpus's own classes: its labels, or the list that Hugging Face writes into Parquet."""
        if self.texts is not None:
            return meaning.class_names(self.texts)
        if self.label_column is None or self.kind is Kind.TAR:
            return None
        if self.kind is Kind.PARQUET:
            first = self.shards[0]
            return ParquetReader(Place.of(self.root), first.path, self.image_column, self.label_column).class_names()
        return folder.class_names((file for shard in self.shards for file in folder.unpack(shard.files)), self.kind)

    def keeping(self, rows: Sequence[np.ndarray]) -> "Corpus":
        """The same corpus with only those rows for which ``rows``, bool (rows,) per shard, is true."""
        shards = (
            shard if mask.all() else replace(shard, kept=np.packbits(self.open(shard).mask(mask)).tobytes().hex())
            for shard, mask in zip(self.shards, rows, strict=True)
        )
        return replace(self, shards=tuple(shards))


class ShardReader:
    """Reads the rows of a shard that belong to the corpus, by group. See ``formats.place.Reader``."""

    def __init__(self, corpus: Corpus, shard: Shard) -> None:
        self._name = f"{corpus.root}/{shard.path}"
        self._reader, self._names = _reader(corpus, shard), corpus.names or ()
        self.group_rows = list(self._reader.group_rows)
        self._kept: np.ndarray | None = None
        if shard.kept:
            bounds = np.concatenate([[0], np.cumsum(self.group_rows)])
            bits = np.unpackbits(np.frombuffer(bytes.fromhex(shard.kept), np.uint8), count=int(bounds[-1]))
            self._kept = np.flatnonzero(bits)
            self._bounds = bounds
            self.group_rows = [int(bits[begin:end].sum()) for begin, end in pairwise(bounds)]

    @property
    def bytes_read(self) -> int:
        """Bytes of the shard that ``images`` has read so far, with those of rows that were not asked for."""
        return self._reader.bytes_read

    @property
    def reads_rows(self) -> bool:
        """True if ``images`` of some rows reads little more than these rows."""
        return self._reader.reads_rows

    def images(self, group: int, rows: np.ndarray | None = None) -> pa.Array:
        """The encoded images of a group, as an Arrow array of (large) binary; nulls stay null.

        ``rows``: only these, int64 ascending, numbered from 0 in the group.
        """
        if self._kept is not None:
            begin, end = np.searchsorted(self._kept, self._bounds[group : group + 2])
            kept = self._kept[begin:end] - self._bounds[group]
            rows = kept if rows is None else kept[rows]
        return self._reader.images(group, rows)

    def labels(self) -> pa.Array:
        """The label of every row, as an Arrow array of integers; nulls stay null."""
        labels = self._reader.labels()
        if pa.types.is_string(labels.type):
            labels = meaning.numbers_of(labels, self._names, self._reader.where)
        return labels if self._kept is None else labels.take(pa.array(self._kept))

    def mask(self, rows: np.ndarray) -> np.ndarray:
        """``rows``, bool for every row of the corpus, as bool for every row of the shard."""
        if self._kept is None:
            return rows
        mask = np.zeros(int(self._bounds[-1]), bool)
        mask[self._kept[rows]] = True
        return mask

    def where(self, row: int) -> str:
        """The name of a row (0-based, of those of the corpus), for a person."""
        return self._reader.where(row if self._kept is None else int(self._kept[row]))

    def origins(self, rows: np.ndarray) -> pa.Table:
        """The names of ``rows`` (int64 ascending, of those of the corpus): the columns of ``corpora.origins``."""
        return self._reader.origins(rows if self._kept is None else self._kept[rows])


def count_per_class(labels: Iterable[np.ndarray], classes: int) -> np.ndarray:
    """Images of each class, int64 of length ``classes``."""
    return sum((np.bincount(part, minlength=classes) for part in labels), np.zeros(classes, np.int64))


def _reader(corpus: Corpus, shard: Shard) -> Reader:
    if corpus.kind in {Kind.PARQUET, Kind.TAR}:
        return _file_reader(corpus, shard)
    return folder.FolderReader(Place.of(corpus.root), shard.files, corpus.names)


def _file_reader(corpus: Corpus, shard: Shard) -> ParquetReader | TarReader:
    place = Place.of(corpus.root)
    if corpus.kind is Kind.PARQUET:
        return ParquetReader(place, shard.path, corpus.image_column, corpus.label_column)
    by_tar, stat = corpus.texts is not None, Stat(shard.size, shard.stamp)
    return TarReader(place, shard.path, stat, corpus.label_column, corpus.folders, by_tar)


def _found(listed: Listing, own: Sequence[str], kind: Kind, labelled: bool, packed: bool) -> Found:
    """Files besides the corpus's ``own``; ``packed``: an ingest made the folder and keeps its records there."""
    held = set(own)
    if kind is Kind.PARQUET:  # images beside it are those that its rows name by path
        held |= {path for path in listed.files if is_image(path)}
    beside = [path for path in listed.files if path not in held and not is_left_over(path)]
    classes = {path for path in listed.folders if "/" not in path and not is_left_over(path)}
    of_images = {path.partition("/")[0] for path in own}
    return Found(
        passed_over=() if packed else by_suffix(beside),
        of=len(own) + len(beside),
        sniffed=sum(not is_image(path) for path in own) if kind is Kind.FOLDER else 0,
        empty=tuple(sorted(classes - of_images)) if labelled and kind is Kind.FOLDER else (),
        links=len(listed.links),
        repeats=len(listed.repeats),
        broken=tuple(sorted(listed.broken)),
    )


def _run_of(files: Sequence[folder.File]) -> Shard:
    text = folder.pack(files)
    stamp = int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")
    path = f"{files[0].path} .. {files[-1].path}" if len(files) > 1 else files[0].path
    return Shard(0, path, sum(it.size for it in files), stamp, text)


def _check_root(root: str, known: Sequence[str], now: Container[str]) -> None:
    """Raise ``InputError`` if none of the run's known files is here: the run was begun with another folder."""
    if len(known) > 1 and not any(path in now for path in known):
        raise InputError(
            f"{root}: none of the {len(known):,} files that this run was begun with is here ({known[0]}, ...), so it "
            f"is another corpus. Give the one it was begun with, or another run.dir."
        )


def changed(name: str, how: str) -> InputError:
    """The error that the file ``name`` is not what the run first saw, and what to do about it."""
    return InputError(
        f"{name} {how} since this run first saw it. Put the same file back, or start a new run with another run.dir."
    )


def _touched(
    root: str,
    known: Iterable[tuple[int, str, Stat | folder.File]],
    now: Mapping[str, Stat | folder.File],
    compared: bool,
) -> tuple[tuple[int, str, int], ...]:
    """``Corpus.touched`` of the ``known`` files, each given with its shard's ordinal. Raises like ``_is_touched``."""
    return tuple(
        (ordinal, path, now[path].stamp)
        for ordinal, path, then in known
        if _is_touched(f"{root}/{path}", then, now.get(path), compared)
    )


def _is_touched(name: str, then: Held, now: Held | None, compared: bool) -> bool:
    """Whether only the mtime of a known file differs. ``InputError`` if more differs, or contents are not compared."""
    if now == then:
        return False
    if now is None:
        how = "is gone"
    elif now.size != then.size:
        how = f"has changed ({then.size} -> {now.size} bytes)"
    elif replace(now, stamp=then.stamp) != then:
        how = "has changed (its label)"
    elif compared:
        return True
    else:
        how = "has changed (its mtime)"
    raise changed(name, how)
