"""Images to label tables on Ray Data: shards -> slices -> teacher actors, in one of two layouts.

One row of the dataset is one slice, a fixed run of rows of one row group, and a teacher takes one row at a time: Ray
merges and splits blocks but never rows, so what is labelled together does not depend on how the work was spread. In
the layout ``actor`` the teacher's actor reads and decodes its slices itself and no image crosses the object store; in
``tasks`` CPU tasks read and decode them, and uint8 pixels travel through the object store to the teachers, which
keeps GPUs fed by the CPUs of other nodes.
"""

import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from ray_ns.artifacts.digests import Digests, KnownFrom, load
from ray_ns.artifacts.network import Network
from ray_ns.config import Config
from ray_ns.corpora.corpus import Corpus, Shard, image_ids, split_ids
from ray_ns.corpora.known import DIGEST_BYTES, Known, check_of
from ray_ns.engine.run import Run
from ray_ns.images import decode
from ray_ns.images.isolate import SafeDecode
from ray_ns.labels import schema
from ray_ns.store.commit import StoredObject
from ray_ns.store.objects import ObjectStore

CONTENT = "content"
Row = dict[str, Any]


@dataclass(frozen=True)
class Piece:
    """The ``part``-th of ``parts`` equal runs of a shard's row groups (0 of 1: the whole shard)."""

    shard: Shard
    part: int = 0
    parts: int = 1


@dataclass(frozen=True)
class Job:
    """Pieces of one corpus whose labels make one table, in this order; ``only`` the images of those selections."""

    corpus: str
    pieces: tuple[Piece, ...]
    only: tuple[StoredObject, ...] = ()


def predict(
    run: Run, teacher: Network, jobs: Sequence[Job], known: Digests | None = None
) -> Iterator[tuple[Job, pa.Table]]:
    """Label every image of ``jobs`` with ``teacher``; each job's table comes once, in whatever order they finish.

    ``known``: digests of images that get no label but the reason where they are known from. Beside
    the columns of ``labels.schema`` a table has ``CONTENT``, a checksum of each image's bytes.

    Jobs go to Ray Data some at a time, so that neither the driver's memory nor what a crash can cost grows with them.
    """
    label = run.config.label
    at_once = max(label.open_shards, label.actors * 2)
    waiting = iter(jobs)
    while batch := list(islice(waiting, at_once)):
        yield from _execute(run, teacher, batch, known)


def _execute(run: Run, teacher: Network, jobs: list[Job], known: Digests | None) -> Iterator[tuple[Job, pa.Table]]:
    """One bounded execution of Ray Data."""
    run.ray_libraries()
    import ray

    size = teacher.size or run.config.data.size  # a fine-tuned one sees larger images
    config = run.config.at_size(size)
    context = ray.data.DataContext.get_current()
    context.memory_usage_poll_interval_s = None  # nobody reads what it finds out
    if config.label.layout_here == "tasks":
        # One slice per block. Ray sets room in the object store aside for two whole blocks of every task, and with
        # its blocks of 128 MB lets most CPUs idle for want of it.
        pixels = config.label.slice_rows * config.data.size**2 * config.data.channels
        context.target_max_block_size = min(context.target_max_block_size or pixels, pixels)
    items = [
        {
            "job": number,
            "corpus": job.corpus,
            "piece": at,
            "shard": it.shard.ordinal,
            "part": it.part,
            "parts": it.parts,
        }
        | ({"only": [vars(it) for it in job.only]} if job.only else {})
        for number, job in enumerate(jobs)
        for at, it in enumerate(job.pieces)
    ]
    list_them = partial(list_slices, corpora=run.corpora, slice_rows=config.label.slice_rows, store=run.store)
    rows = ray.data.from_items(items, override_num_blocks=len(items)).flat_map(list_them, num_cpus=LISTING_CPUS)
    known_from = known.known_from(run.store) if known else None
    if config.label.layout_here == "tasks":
        decode_it = partial(decode_slice, corpora=run.corpora, config=config, known_from=known_from)
        rows = rows.map_batches(decode_it, batch_size=1)
    files = {name: vars(stored) for name, stored in teacher.files.items()}
    # A GPU's actor takes two slices: one is read, decoded and copied while the other goes through the network.
    at_once = 2 if config.label.gpus_per_actor else 1
    actors = ray.data.ActorPoolStrategy(
        size=config.label.actors, max_concurrent_calls_per_actor=at_once, enable_true_multi_threading=True
    )
    labelled = rows.map_batches(
        TeacherActor,
        batch_size=1,
        compute=actors,
        num_cpus=0 if config.label.gpus_per_actor else config.label.threads,
        num_gpus=config.label.gpus_per_actor or None,
        fn_constructor_args=(run.store, files, run.corpora, config, known_from),
    )
    for number, table in assembled(labelled.iter_rows(), [len(job.pieces) for job in jobs]):
        yield jobs[number], table


# Listing reads a footer and waits for the disk; a whole CPU for it would be one less for decoding.
LISTING_CPUS = 0.25


def list_slices(row: Row, corpora: dict[str, Corpus], slice_rows: int, store: ObjectStore) -> list[Row]:
    """The slices of one piece: runs of at most ``slice_rows`` rows of one row group, from the shard's footer alone.

    Where the row names selections (``only``), a slice holds that many selected rows, listed in ``at``.
    """
    corpus = corpora[row["corpus"]]
    shard = corpus.shard(row["shard"])
    only = row.pop("only", None)
    wanted = None if only is None else selected_rows([StoredObject(**it) for it in only], store, shard)
    return slices_of(row, corpus.open(shard).group_rows, slice_rows, wanted)


def slices_of(row: Row, group_rows: Sequence[int], slice_rows: int, wanted: np.ndarray | None) -> list[Row]:
    """``row`` once for every slice of its part of a shard: of all rows, or of those ``wanted``, int64 ascending."""
    first = np.concatenate([[0], np.cumsum(group_rows)])
    groups = range(row["part"] * len(group_rows) // row["parts"], (row["part"] + 1) * len(group_rows) // row["parts"])
    slices: list[Row] = []
    for group in groups:
        at = None if wanted is None else wanted[slice(*wanted.searchsorted(first[group : group + 2]))] - first[group]
        rows = group_rows[group] if at is None else len(at)
        for begin in range(0, rows, slice_rows):
            count = min(slice_rows, rows - begin)
            listed = {} if at is None else {"at": at[begin : begin + count].tobytes()}
            slices.append({"group": group, "begin": begin, "rows": count, "first": int(first[group]), **listed})
    # A piece without rows still has one slice, so that its job too comes to an end.
    empty = {"group": -1, "begin": 0, "rows": 0, "first": 0} | ({} if wanted is None else {"at": b""})
    slices = slices or [empty]
    return [{**row, **it, "slice": number, "slices": len(slices)} for number, it in enumerate(slices)]


def selected_rows(selections: Sequence[StoredObject], store: ObjectStore, shard: Shard) -> np.ndarray:
    """The rows of ``shard``, int64 ascending, that parts of a selection hold."""
    tables = [schema.from_parquet(it.read(store), it.key, ["image_id"]) for it in selections]
    ordinals, rows = split_ids(pa.concat_tables(tables)["image_id"].to_numpy())
    return np.sort(rows[ordinals == shard.ordinal])


def decode_slice(
    batch: dict[str, np.ndarray], corpora: dict[str, Corpus], config: Config, known_from: KnownFrom | None = None
) -> dict[str, np.ndarray]:
    """The layout ``tasks``: one slice in, the same with its pixels (uint8) and quarantine reasons out."""
    row = {name: column[0] for name, column in batch.items()}
    known = known_from and load(*known_from)
    content: list[bytes] = []
    images, reasons = Reader.of_process(config).read(corpora, row, known, content)
    found = {"reasons": np.array([[reason or "" for reason in reasons]], object)}
    return {**batch, "images": images[None], **found, CONTENT: np.array([b"".join(content)], object)}


class TeacherActor:
    """One teacher of the pool: loads the network once, then labels slice after slice."""

    def __init__(
        self,
        store: ObjectStore,
        files: dict[str, Row],
        corpora: dict[str, Corpus],
        config: Config,
        known_from: KnownFrom | None = None,
    ) -> None:
        import torch

        from ray_ns.models.files import from_files
        from ray_ns.models.memory import keep_memory
        from ray_ns.models.predictor import Teacher

        label = config.label
        keep_memory()
        network = from_files({name: StoredObject(**it).read(store) for name, it in files.items()})
        device = torch.device("cuda" if torch.cuda.is_available() and label.gpus_per_actor else "cpu")
        self._teacher = Teacher(network, config.data, label.slice_rows, label.precision, device, label.compile)
        self._reader = Reader(config)
        self._corpora = corpora
        self._known = known_from and load(*known_from)
        self._keep = label.keep, min(label.top, config.data.classes)
        self._threads = label.threads

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One slice in, decoded already or not; where it belongs and its label table as Arrow IPC bytes out."""
        import torch

        torch.set_num_threads(self._threads)  # OpenMP keeps it per thread, and Ray calls in threads of its own
        row = {name: column[0] for name, column in batch.items()}
        if "images" in row:
            images, reasons = row["images"], [reason or None for reason in row["reasons"]]
            content = row[CONTENT]
        else:
            own: list[bytes] = []
            images, reasons = self._reader.read(self._corpora, row, self._known, own)
            content = b"".join(own)
        ids = image_ids(int(row["shard"]), int(row["first"]) + rows_of(row))
        table = schema.label_table(ids, self._teacher(images), reasons, *self._keep)
        table = table.append_column(CONTENT, _fixed(content))
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        found = {name: batch[name] for name in ("job", "piece", "slice", "slices")}
        return {**found, "table": np.array([sink.getvalue().to_pybytes()], object)}


class Reader:
    """Reads and decodes slices; the next row group is read while this one is decoded."""

    def __init__(self, config: Config) -> None:
        decoder = decode.Decode(config.data.size, config.data.channels, config.data.fit)
        self._decode = SafeDecode(decoder, config.label.image_seconds, config.label.threads)
        self._shape = (config.data.size, config.data.size, config.data.channels)
        self._one_run = threading.Lock()  # a GPU's actor takes two slices; the alarm over a decoder is one per process
        self._ahead = ThreadPoolExecutor(1)  # whatever is read: a shard's reader is not for two threads at once
        self._shard = lru_cache(2)(lambda corpus, shard: corpus.open(shard))
        self._group = lru_cache(3)(self._begin_group)

    @classmethod
    def of_process(cls, config: Config) -> "Reader":
        """The reader of this worker process, which outlives a task but not a network of another size."""
        global _reader
        if _reader is None or _reader._shape[0] != config.data.size:
            import torch

            from ray_ns.models.memory import keep_memory

            torch.set_num_threads(1)
            keep_memory()
            _reader = cls(config)
        return _reader

    def read(
        self, corpora: dict[str, Corpus], row: Row, known: Known | None = None, content: list[bytes] | None = None
    ) -> tuple[np.ndarray, list[str | None]]:
        """Pixels, uint8 (rows, size, size, channels), and why an image of them is blank.

        What is ``known`` is not decoded and gets the reason where it is known from. ``content``, where it is given,
        gets the ``check_of`` each image.
        """
        count, group = int(row["rows"]), int(row["group"])
        images = np.empty((count, *self._shape), np.uint8)
        reasons: list[str | None] = [None] * count
        if not count:
            return images, reasons
        corpus = corpora[row["corpus"]]
        shard = corpus.shard(int(row["shard"]))
        reader = self._shard(corpus, shard)
        if "at" in row and reader.reads_rows:
            encoded = self._ahead.submit(reader.images, group, rows_of(row)).result()
        else:
            encoded = self._group(corpus, shard, group).result()
            encoded = encoded.take(pa.array(rows_of(row))) if "at" in row else encoded.slice(int(row["begin"]), count)
            if group + 1 < len(reader.group_rows):
                self._group(corpus, shard, group + 1)
        run = f"{corpus.root} {shard.path} {shard.stamp} {group} {row['begin']} {count} {row.get('at')!r}"

        def unknown() -> Iterator[bytes | None]:
            for place, value in enumerate(encoded):
                image = value.as_py()
                reasons[place] = known(image) if known else None
                if content is not None:
                    content.append(check_of(image))
                yield image if reasons[place] is None else None

        with self._one_run:
            for place, pixels in enumerate(self._decode(run, unknown())):
                if isinstance(pixels, decode.Reason):
                    reasons[place] = reasons[place] or str(pixels)
                    images[place] = 0
                else:
                    images[place] = pixels
        return images, reasons

    def _begin_group(self, corpus: Corpus, shard: Shard, group: int) -> Any:
        return self._ahead.submit(self._shard(corpus, shard).images, group)


_reader: Reader | None = None


def _fixed(content: bytes) -> pa.Array:
    """Checksums, one behind the other, as a column."""
    kind = pa.binary(DIGEST_BYTES)
    return pa.Array.from_buffers(kind, len(content) // DIGEST_BYTES, [None, pa.py_buffer(content)])


def rows_of(row: Row) -> np.ndarray:
    """The rows of its row group, int64, that a slice holds."""
    return np.frombuffer(row["at"], np.int64) if "at" in row else int(row["begin"]) + np.arange(int(row["rows"]))


def assembled(rows: Iterable[Row], pieces: Sequence[int]) -> Iterator[tuple[int, pa.Table]]:
    """Slices in any order to whole jobs: (number of the job, its table), each once its last slice has come.

    ``pieces``: how many pieces each job has. Raises ``AssertionError`` where the rows end before every job did.
    """
    waiting: dict[int, dict[int, dict[int, bytes]]] = {number: {} for number in range(len(pieces))}
    for row in rows:
        number = int(row["job"])
        if number not in waiting:
            continue
        of_piece = waiting[number].setdefault(int(row["piece"]), {})
        of_piece[int(row["slice"])] = row["table"]
        if len(of_piece) == row["slices"]:
            of_piece[-1] = b""  # this piece is whole
        if sum(-1 in it for it in waiting[number].values()) == pieces[number]:
            done = waiting.pop(number)
            tables = [
                pa.ipc.open_stream(done[piece][at]).read_all()
                for piece in sorted(done)
                for at in sorted(done[piece])
                if at >= 0
            ]
            yield number, pa.concat_tables(tables).combine_chunks()
    if waiting:
        raise AssertionError(f"Ray Data ended without {len(waiting)} of {len(pieces)} jobs")
