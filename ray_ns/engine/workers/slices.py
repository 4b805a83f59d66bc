"""What labelling is cut into, and how a worker reads it: a job into pieces, a piece into slices.

``Job``: all images whose labels make one table. ``Piece``: a job's share of one shard, some of its row groups.
``Slice``: some rows of one row group, which are read, decoded and labelled together. Ray Data merges and splits blocks
of rows but never a row, and a row of its data set is one slice. So which images go through the network together does
not depend on how the work was spread, and neither do their labels.
"""

import itertools
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from ray_ns import measures
from ray_ns.artifacts import seen
from ray_ns.artifacts.digests import KnownFrom, load
from ray_ns.config import Config, Data
from ray_ns.corpora.corpus import Corpus, Shard, ShardReader, image_ids, split_ids
from ray_ns.corpora.known import Known, check_of
from ray_ns.engine import metrics
from ray_ns.images import decode
from ray_ns.images.isolate import SafeDecode
from ray_ns.labels import schema
from ray_ns.store.commit import StoredObject
from ray_ns.store.objects import ObjectStore

IMAGES, REASONS, CONTENT = "images", "reasons", seen.CONTENT  # what a decoded slice has beside its place
OWN = ""  # the view of a run's own evaluation: as the images are
LOGITS = "logits"  # the view in which a network's logits are asked for, and the column that holds them
READERS = 8  # of a process; each holds a row group or two
Row = dict[str, Any]  # of Ray Data: a slice and what was made of it
Batch = dict[str, np.ndarray]  # of Ray Data: one row, each value as an array of length 1


@dataclass(frozen=True)
class Piece:
    """The ``part``-th of ``parts`` equal runs of a shard's row groups (0 of 1: the whole shard)."""

    shard: Shard
    part: int = 0
    parts: int = 1


@dataclass(frozen=True)
class Job:
    """Pieces of one corpus whose labels make one table, in this order; ``only`` the images of those selections.

    ``view``: how a network is judged on them (``evaluate.suites``); ``OWN``: as they are, the run's own network on its
    validation and test images; None: they are labelled.
    """

    corpus: str
    pieces: tuple[Piece, ...]
    only: tuple[StoredObject, ...] = ()
    view: str | None = None

    @property
    def stage(self) -> str:
        """The stage it is for."""
        return _stage(self.corpus, self.view)


@dataclass(frozen=True)
class Slice:
    """``rows`` rows of row group ``group`` of a shard: those from ``begin`` on, or those listed ``at``.

    ``shard``: its ordinal. ``first``: the row of the shard with which the group begins. ``at``: rows of the group as
    int64 bytes, where not all are wanted. The labels belong to piece ``piece`` of job ``job``, where this is slice
    ``number`` of ``count``. ``view``: the job's.
    """

    corpus: str
    shard: int
    group: int
    first: int
    begin: int
    rows: int
    at: bytes | None = None
    job: int = 0
    piece: int = 0
    number: int = 0
    count: int = 1
    view: str | None = None

    @property
    def stage(self) -> str:
        """The stage it is for."""
        return _stage(self.corpus, self.view)

    @property
    def in_group(self) -> np.ndarray:
        """Its rows of the row group, int64."""
        return self.begin + np.arange(self.rows) if self.at is None else np.frombuffer(self.at, np.int64)

    @property
    def image_ids(self) -> np.ndarray:
        """Of its rows, int64."""
        return image_ids(self.shard, self.first + self.in_group)

    def as_row(self) -> Row:
        """As Ray Data takes it: no column for what is None, since a column of nothing has no type."""
        return {name: value for name, value in vars(self).items() if value is not None}

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> "Slice":
        """The slice of such a row, whatever else the row holds."""
        return cls(**{name: row[name] for name in FIELDS if name in row})

    @classmethod
    def of_batch(cls, batch: Batch) -> "Slice":
        """The slice of a batch of one row."""
        return cls(**{name: batch[name].item() for name in FIELDS if name in batch})


FIELDS = tuple(field.name for field in fields(Slice))


def _stage(corpus: str, view: str | None) -> str:
    """The pool is labelled, other images are for figures of a network."""
    if view == LOGITS:
        return "calibrate"
    if view:
        return "judge"
    return "label" if corpus == "pool" else "evaluate"


def list_slices(
    row: Row, jobs: Sequence[Job], corpora: Mapping[str, Corpus], slice_rows: int, store: ObjectStore
) -> list[Row]:
    """The slices of one piece, as rows; from the shard's footer alone. ``row``: which ``job`` and ``piece`` of it."""
    job = jobs[row["job"]]
    piece, corpus = job.pieces[row["piece"]], corpora[job.corpus]
    wanted = selected_rows(job.only, store, piece.shard) if job.only else None
    found = cut(job.corpus, piece, corpus.open(piece.shard).group_rows, slice_rows, wanted)
    return [replace(it, view=job.view).as_row() | row for it in found]


def cut(
    corpus: str, piece: Piece, group_rows: Sequence[int], slice_rows: int, wanted: np.ndarray | None = None
) -> list[Slice]:
    """A piece as slices of at most ``slice_rows`` rows: of all its rows, or of those ``wanted``, int64 ascending.

    ``group_rows``: of the whole shard. ``wanted``: rows of the shard.
    """
    first = np.concatenate([[0], np.cumsum(group_rows)]).tolist()
    begin, end = (at * len(group_rows) // piece.parts for at in (piece.part, piece.part + 1))
    listed: list[dict[str, Any]] = []
    for group in range(begin, end):
        rows, at = group_rows[group], None
        if wanted is not None:
            at = wanted[slice(*wanted.searchsorted(first[group : group + 2]))] - first[group]
            rows = len(at)
        for start in range(0, rows, slice_rows):
            some = None if at is None else at[start : start + slice_rows].tobytes()
            count = min(slice_rows, rows - start)
            listed.append({"group": group, "first": first[group], "begin": start, "rows": count, "at": some})
    # A piece without rows still has one slice, so that its job too comes to an end.
    empty = {"group": -1, "first": 0, "begin": 0, "rows": 0, "at": None if wanted is None else b""}
    listed = listed or [empty]
    shard = piece.shard.ordinal
    return [Slice(corpus, shard, **it, number=number, count=len(listed)) for number, it in enumerate(listed)]


def selected_rows(selections: Sequence[StoredObject], store: ObjectStore, shard: Shard) -> np.ndarray:
    """The rows of ``shard``, int64 ascending, that parts of a selection hold."""
    tables = [schema.from_parquet(it.read(store), it.key, ["image_id"]) for it in selections]
    ordinals, rows = split_ids(pa.concat_tables(tables)["image_id"].to_numpy())
    return np.sort(rows[ordinals == shard.ordinal])


def decode_slice(
    batch: Batch, corpora: Mapping[str, Corpus], feeds: Sequence[Config], known_from: KnownFrom | None = None
) -> Batch:
    """The layout ``tasks``: one slice in; the same with its pixels, reasons and checksums out (``decoded`` reads them).

    The pixels are uint8, by each of ``feeds`` (``distinct``).
    """
    slice_ = Slice.of_batch(batch)
    metrics.in_worker(slice_.stage)
    known = known_from and load(*known_from)
    images, reasons, content = read_all([Reader.of_process(it) for it in feeds], corpora, slice_, known)
    pixels = {_images_by(number): of[None] for number, of in enumerate(images)}
    found = {REASONS: np.array([[reason or "" for reason in reasons]], object)}
    return {**batch, **pixels, **found, CONTENT: np.array([content], object)}


def decoded(batch: Batch) -> tuple[list[np.ndarray], list[str | None], bytes] | None:
    """Pixels by each feed, reasons and checksums that ``decode_slice`` put into a batch; None where it did not."""
    if IMAGES not in batch:
        return None
    images = [batch[name][0] for name in itertools.takewhile(batch.__contains__, map(_images_by, itertools.count()))]
    return images, [reason or None for reason in batch[REASONS][0]], batch[CONTENT][0]


def distinct(config: Config, data: Sequence[Data]) -> list[Config]:
    """The settings by which a slice is decoded for networks that are fed by ``data``: those that differ, in order."""
    found: list[Data] = []
    for it in data:
        if all(not alike(it, other) for other in found):
            found.append(it)
    return [config.model_copy(update={"data": it}) for it in found]


def alike(one: Data, other: Data) -> bool:
    """Whether two networks are fed with the same pixels, which each then normalises by itself."""
    return decode.Decode.of(one) == decode.Decode.of(other)


def read_all(
    readers: Sequence["Reader"], corpora: Mapping[str, Corpus], slice_: Slice, known: Known | None = None
) -> tuple[list[np.ndarray], list[str | None], bytes]:
    """A slice's pixels by each reader; why an image has none by one of them; the images' checksums."""
    content: list[bytes] = []
    found = [it.read(corpora, slice_, known, None if number else content) for number, it in enumerate(readers)]
    reasons = [next(filter(None, of), None) for of in zip(*(reasons for _, reasons in found), strict=True)]
    return [images for images, _ in found], reasons, b"".join(content)


def _images_by(feed: int) -> str:
    return f"{IMAGES}-{feed}" if feed else IMAGES


class Reader:
    """Reads and decodes slices; the next row group is read while this one is decoded."""

    def __init__(self, config: Config) -> None:
        self._decoder = decode.Decode.of(config.data)
        self._decode = SafeDecode(self._decoder, config.label.image_seconds, config.label.threads)
        self._shape = (config.data.size, config.data.size, config.data.channels)
        self._one_run = threading.Lock()  # a GPU's actor takes two slices; the alarm over a decoder is one per process
        self._ahead = ThreadPoolExecutor(1)  # all reading: a shard's reader is not for two threads at once
        self._shard = lru_cache(2)(lambda corpus, shard: corpus.open(shard))
        self._group = lru_cache(3)(self._begin_group)

    @classmethod
    def of_process(cls, config: Config) -> "Reader":
        """The reader of this worker process, which outlives a task: the last ``READERS`` that were asked for."""
        reader = next((it for it in _readers if it._decoder == decode.Decode.of(config.data)), None)
        if reader is None:
            import torch

            from ray_ns.models.memory import keep_memory

            torch.set_num_threads(1)
            keep_memory()
            reader = cls(config)
            _readers.append(reader)
        return reader

    def read(
        self,
        corpora: Mapping[str, Corpus],
        slice_: Slice,
        known: Known | None = None,
        content: list[bytes] | None = None,
    ) -> tuple[np.ndarray, list[str | None]]:
        """Pixels, uint8 (rows, size, size, channels), and for each image None or the reason why its pixels are 0.

        A ``known`` image is not decoded; its reason names the corpus that has it. ``content``, where it is given, gets
        the ``check_of`` each image.
        """
        images = np.empty((slice_.rows, *self._shape), np.uint8)
        reasons: list[str | None] = [None] * slice_.rows
        if not slice_.rows:
            return images, reasons
        corpus = corpora[slice_.corpus]
        shard = corpus.shard(slice_.shard)
        encoded = self._encoded(corpus, shard, slice_)
        run = f"{corpus.root} {shard.path} {shard.stamp} {slice_.group} {slice_.begin} {slice_.rows} {slice_.at!r}"

        def unknown() -> Iterator[bytes | None]:
            for place, value in enumerate(encoded):
                image = value.as_py()
                reasons[place] = known(image) if known else None
                if content is not None:
                    content.append(check_of(image))
                yield image if reasons[place] is None else None

        began = time.perf_counter()
        with self._one_run:
            for place, pixels in enumerate(self._decode(run, unknown())):
                if isinstance(pixels, decode.Reason):
                    reasons[place] = reasons[place] or str(pixels)
                    images[place] = 0
                else:
                    images[place] = pixels
        measures.timed("ns_decode_seconds", time.perf_counter() - began)
        measures.count("ns_images_decoded", slice_.rows)
        return images, reasons

    def _encoded(self, corpus: Corpus, shard: Shard, slice_: Slice) -> pa.Array:
        """The bytes of a slice's images. A whole row group is read at once, and the next one begun."""
        reader = self._shard(corpus, shard)
        if slice_.at is not None and reader.reads_rows:
            return self._ahead.submit(_images, reader, slice_.group, slice_.in_group).result()
        whole = self._group(corpus, shard, slice_.group).result()
        encoded = whole.slice(slice_.begin, slice_.rows) if slice_.at is None else whole.take(pa.array(slice_.in_group))
        if slice_.group + 1 < len(reader.group_rows):
            self._group(corpus, shard, slice_.group + 1)
        return encoded

    def _begin_group(self, corpus: Corpus, shard: Shard, group: int) -> Any:
        return self._ahead.submit(_images, self._shard(corpus, shard), group)


def _images(reader: ShardReader, *which: Any) -> pa.Array:
    """The images that ``reader`` reads; the bytes of the shard that it takes are counted."""
    before = reader.bytes_read
    images = reader.images(*which)
    measures.count("ns_bytes_read", reader.bytes_read - before)
    return images


_readers: deque[Reader] = deque(maxlen=READERS)
