"""Pack any corpus into Parquet shards, without copies of itself and without copies of images to keep out.

The destination is a run of its own (``store``): begun once, resumed by the same command, grown by ``--append``. Each
generation of the source is three stages. ``hashes``: the sha256 of every image. ``duplicates``: ranges of hashes, each
merged by one task, name the images whose bytes an earlier image has. ``ingest``: what is neither copy nor unreadable,
packed. The parts of the first and third are the same runs of the source, about one output shard each.

Ray tasks and not Ray Data: a task reads its run of the source and writes what comes of it itself, as selection does, so
no image crosses the object store and the driver holds a few figures per part. The source is read twice and decoded
once; the other way about, packing first and taking copies out later, nearly every shard of a real pool would be
written twice.
"""

import contextlib
import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ray_ns import config as configs
from ray_ns.config import Cluster, Config, Label
from ray_ns.engine import preflight
from ray_ns.engine.label import label_shards
from ray_ns.engine.predict import Job
from ray_ns.engine.session import Session
from ray_ns.errors import InputError
from ray_ns.images import decode, near, pack
from ray_ns.images.corpus import ROW_BITS, Corpus, Shard, ShardReader
from ray_ns.images.isolate import SafeDecode
from ray_ns.images.unreadable import refuse_above
from ray_ns.observe import Mode, Reporter
from ray_ns.store import run as runs
from ray_ns.store.commit import Commit, Stage, StoredObject, find_commit, planned_inputs
from ray_ns.store.lease import Lease, fence
from ray_ns.store.manifest import canonical, digest
from ray_ns.store.objects import ObjectStore, open_store

SHARD_BYTES, SHARD_ROWS = 256 << 20, 50_000  # of an output shard at most, about, where the user names no rows
SAMPLE = 64  # images whose size in the output says how many make a shard
HASHES, DUPLICATES, LEFT_OUT = "hashes", "duplicates", "left_out.jsonl"
RANGE_ROWS = 4_000_000  # hashes that one task merges: about 0.5 GB
ROWS_PER_GROUP = 16_384  # of a file of hashes: what is read for a range, at least
ATTEMPTS = 16  # of a part: an image that kills its decoder costs one, and is read in a process of its own by the next
OPEN_SHARDS = 16  # that are held open to name what others are copies of
KEPT_OUT = "keep_out_{}"


@dataclass(frozen=True)
class Ingest:
    """What to pack: corpora as paths or URLs, ``size`` of the short side in pixels (None: as it is).

    ``labels``: take them along where the source has them.
    """

    source: str
    destination: str
    size: int | None = None
    keep_out: tuple[str, ...] = ()
    shard_rows: int | None = None
    image_column: str = "image"
    label_column: str = "label"
    labels: bool = True
    max_quarantined: float = 0.01


def ingest(asked: Ingest, append: bool, mode: Mode) -> list[Commit]:
    """Pack the source, or what is left of it after an interruption; one commit for each generation of the source.

    ``append``: take in what the source has gained. Raises ``InputError`` for whatever cannot be packed.
    """
    store = open_store(asked.destination)
    _check_places(asked, store)
    begun = runs.read(store, runs.RUN)
    pinned = runs.generations(store)
    known = {name: [Shard(**it) for it in shards] for name, shards in (pinned[-1] if pinned else {}).items()}
    corpora = _scan(asked, known)
    settings = {
        "ingest": {
            "size": asked.size,
            "keep_out": len(asked.keep_out),
            "labelled": corpora["source"].label_column is not None,
            "shard_rows": asked.shard_rows,
        }
    }
    runs.check_owner(store, settings, configs.differences)
    reporter = Reporter(mode)
    for name, shards in known.items():
        if not (append and name == "source"):
            mend = "--append" if name == "source" else "another destination"
            corpora[name] = preflight.as_known(corpora[name], shards, corpora[name].root, mend, reporter)
    bounds = [len(generation["source"]) for generation in pinned]
    if len(corpora["source"].shards) not in bounds:
        bounds.append(len(corpora["source"].shards))
    preflight.check_writable(store.url)
    # There is no network and no training here: of a config, only how Ray is reached is needed.
    parts: dict[str, Any] = {"cluster": Cluster(), "label": Label()}
    with Session(Config.model_construct(**parts), store, corpora, tuple(bounds), Lease(store), reporter) as session:
        seen = {name: [vars(shard) for shard in corpus.shards] for name, corpus in corpora.items()}
        if not begun:
            runs.begin(store, settings, seen, session.lease.check, None)
        elif len(bounds) > len(pinned):
            runs.grow(store, seen, len(bounds), session.lease.check)
        work = _Work(session, asked)
        return [work.generation(number) for number in range(1, len(bounds) + 1)]


def _check_places(asked: Ingest, store: ObjectStore) -> None:
    """Refuse a destination that holds other things, or lies in a corpus or around one."""
    other = _as_path(store.url)
    for corpus in (asked.source, *asked.keep_out):
        one = _as_path(corpus)
        if one.is_relative_to(other) or other.is_relative_to(one):
            raise InputError(f"{store.url} and {corpus} lie one in the other. Give a destination of its own.")
    if runs.read(store, runs.RUN) is None:
        ours = (runs.corpora_key(1), "driver/")
        other_key = next((key for key in store.list("") if not key.startswith(ours)), None)
        if other_key is not None:
            raise InputError(f"{store.url} holds other things ({other_key}). Give an empty folder, or a new one.")


def _as_path(place: str) -> PurePath:
    """A folder or URL as a path to compare with others."""
    scheme, separator, rest = place.partition("://")
    if separator and scheme != "file":
        return PurePosixPath(f"{scheme}/{rest}")
    return Path(rest if separator else place).resolve()


def _scan(asked: Ingest, known: dict[str, list[Shard]]) -> dict[str, Corpus]:
    """The source, with labels where it has them, and the corpora to keep out."""
    kept = (
        Corpus.scan(root, asked.image_column, None, known.get(KEPT_OUT.format(number), ()))
        for number, root in enumerate(asked.keep_out)
    )
    return {"source": _source(asked, known.get("source", ()))} | {
        KEPT_OUT.format(number): corpus for number, corpus in enumerate(kept)
    }


def _source(asked: Ingest, known: Sequence[Shard]) -> Corpus:
    if asked.labels:
        with contextlib.suppress(InputError):  # it may just have no labels; what else is wrong shows below
            corpus = Corpus.scan(asked.source, asked.image_column, asked.label_column, known)
            labels = corpus.open(corpus.shards[0]).labels()
            if labels.null_count < len(labels):
                return replace(corpus, names=corpus.class_names())
    return Corpus.scan(asked.source, asked.image_column, None, known)


class _Work:
    """The three stages of each generation."""

    def __init__(self, session: Session, asked: Ingest) -> None:
        self._session, self._asked = session, asked
        self._source = session.corpora["source"]
        self._hashes: list[Commit] = []
        self._guard: Any = None

    def generation(self, number: int) -> Commit:
        """The committed shards of one generation of the source. What an older version has committed stays as it is."""
        store = self._session.store
        hashed, packed = (find_commit(store, f"{stage}-{number:04d}") for stage in ("hashes", "ingest"))
        if hashed and packed and number < len(self._session.pools):
            self._hashes.append(hashed)
            return packed
        bounds = [0, *self._session.pools]
        part = replace(self._source, shards=self._source.shards[bounds[number - 1] : bounds[number]])
        source = digest([vars(shard) for shard in part.shards])
        # How the source is cut is decided once: another version of Pillow may make other sizes of the sample.
        planned = planned_inputs(store, f"hashes-{number:04d}")
        inputs: dict[str, Any] = {
            "source": source,
            "shard_rows": planned["shard_rows"] if planned else self._rows(part),
        }
        jobs = label_shards(part, inputs["shard_rows"])
        self._hashes.append(self._session.ensure(f"hashes-{number:04d}", inputs, lambda stage: self._hash(stage, jobs)))
        inputs = {"hashes": [commit.digest for commit in self._hashes]}
        duplicates = self._session.ensure(
            f"duplicates-{number:04d}", inputs, lambda stage: self._merge(stage, part.shards[0].ordinal)
        )
        kept_out = {name: it for name, it in self._session.corpora.items() if name != "source"}
        inputs = {
            "source": source,
            "duplicates": duplicates.digest,
            "size": self._asked.size,
            "keep_out": digest({name: [vars(shard) for shard in it.shards] for name, it in kept_out.items()}),
            "rules": [decode.VERSION, pack.VERSION, near.VERSION],
        }
        return self._session.ensure(
            f"ingest-{number:04d}", inputs, lambda stage: self._pack(stage, jobs, duplicates, kept_out)
        )

    def _hash(self, stage: Stage, jobs: Sequence[Job]) -> tuple[dict[str, Any], int]:
        done = self._parts(stage, len(jobs), "parts read", _hash_part, jobs, self._source)
        self._session.reporter.end(f"{sum(facts['images'] for facts in done):,} images read")
        return {}, len(jobs)

    def _rows(self, source: Corpus) -> int:
        """Images per output shard: as asked for, or as many as make SHARD_BYTES, going by the first ones."""
        if self._asked.shard_rows:
            return self._asked.shard_rows
        groups = (
            reader.images(group)
            for reader in map(source.open, source.shards)
            for group in range(len(reader.group_rows))
        )
        sizes: list[int] = []
        for image in itertools.islice((value.as_py() for images in groups for value in images), SAMPLE):
            packed = pack.resized(image, self._asked.size) if image and self._asked.size else image
            sizes.append(len(packed) if isinstance(packed, bytes) else 0)
        mean = sum(sizes) / max(len(sizes), 1)
        return int(min(SHARD_ROWS, SHARD_BYTES / max(mean, 1)))

    def _merge(self, stage: Stage, first: int) -> tuple[dict[str, Any], int]:
        files = [part.objects[HASHES] for commit in self._hashes for part in commit.parts]
        rows = sum(part.facts["images"] for commit in self._hashes for part in commit.parts)
        count = max(-(-rows // RANGE_ROWS), 1)
        cuts = [at * 2**64 // count for at in range(count + 1)]
        ranges = list(itertools.pairwise(cuts))
        done = self._parts(stage, count, "ranges merged", _merge_range, ranges, files, first)
        found = sum(facts["duplicates"] for facts in done)
        self._session.reporter.end(f"{found:,} images are copies of an earlier one, byte for byte")
        return {"duplicates": found}, count

    def _pack(
        self, stage: Stage, jobs: Sequence[Job], duplicates: Commit, kept_out: dict[str, Corpus]
    ) -> tuple[dict[str, Any], int]:
        guard, kept = self._guarded(kept_out) if kept_out else (None, {})
        files = [part.objects[DUPLICATES] for part in duplicates.parts]
        shared = (self._source, self._asked.size, files, guard)
        done = self._parts(stage, len(jobs), "shards packed", _pack_part, jobs, *shared)
        summary = {key: sum(facts[key] for facts in done) for key in ("read", "images", "bytes", "duplicates", "leaks")}
        reasons: dict[str, int] = {}
        for reason, images in (item for facts in done for item in facts["quarantine"].items()):
            reasons[reason] = reasons.get(reason, 0) + images
        allowed = self._asked.max_quarantined
        refuse_above(allowed, summary["read"], reasons, self._asked.source, "--max-quarantined")
        self._session.reporter.end(f"{summary['images']:,} images packed, {sum(reasons.values()):,} in quarantine")
        return {**summary, "quarantine": dict(sorted(reasons.items())), **kept}, len(jobs)

    def _guarded(self, kept_out: dict[str, Corpus]) -> tuple[Any, dict[str, Any]]:
        """The guard, as a reference in Ray's object store, and what it is made of. Built once, by a task."""
        self._session.ray()
        import ray

        if self._guard is None:
            places = [(name, shard) for name, corpus in kept_out.items() for shard in corpus.shards]
            seen = [
                ray.remote(max_retries=ATTEMPTS)(_look).remote(kept_out[name], name, shard) for name, shard in places
            ]
            guard, facts = ray.remote(num_returns=2)(_build).remote(*seen)
            self._guard = guard, ray.get(facts)
            if self._guard[1]["keep_out"]["unreadable"]:
                self._session.reporter.warn(
                    f"{self._guard[1]['keep_out']['unreadable']} images to keep out cannot be read and guard nothing"
                )
        return self._guard

    def _parts(
        self, stage: Stage, count: int, unit: str, function: Callable[..., Any], items: Sequence[Any], *shared: Any
    ) -> list[Any]:
        """The facts of all parts: of those done before as they are recorded, of the others as tasks record them."""
        facts = {number: part.facts for number, part in stage.done().items()}
        self._session.reporter.begin(stage.prefix, count, unit, len(facts))
        if len(facts) == count:
            return [facts[number] for number in range(count)]
        self._session.ray()
        import ray

        task = ray.remote(max_retries=ATTEMPTS)(_on_part)
        place = (self._session.store.url, stage.prefix, self._session.lease.epoch)
        references = [it if isinstance(it, ray.ObjectRef) else ray.put(it) for it in shared]
        left = iter([number for number in range(count) if number not in facts])
        slots = 2 * max(int(ray.cluster_resources().get("CPU", 1)), 1)
        waiting = {
            task.remote(place, function, number, items[number], *references): number
            for number in itertools.islice(left, slots)
        }
        while waiting:
            (done,), _ = ray.wait(list(waiting), num_returns=1)
            facts[waiting.pop(done)] = ray.get(done)
            self._session.reporter.progress(len(facts))
            waiting |= {
                task.remote(place, function, number, items[number], *references): number
                for number in itertools.islice(left, 1)
            }
        return [facts[number] for number in range(count)]


def _on_part(place: tuple[str, str, int], function: Callable[..., Any], number: int, item: Any, *shared: Any) -> Any:
    """One part, made and published by this task: its facts."""
    url, prefix, epoch = place
    store = open_store(url)
    objects, facts = function(store, item, *shared)
    return Stage(store, prefix, fence(store, epoch)).publish(number, objects, facts).facts


@dataclass(frozen=True)
class _Rows:
    """A run of rows of one group of a shard: their numbers in the shard, images, and labels where there are."""

    shard: Shard
    reader: ShardReader
    rows: list[int]
    images: pa.Array
    labels: list[int | None] | None


def _runs(source: Corpus, job: Job) -> Iterator[_Rows]:
    """All rows of a job, in order, a few at a time."""
    for piece in job.pieces:
        reader = source.open(piece.shard)
        first = np.concatenate([[0], np.cumsum(reader.group_rows)]).tolist()
        groups = len(reader.group_rows)
        labels = None if source.label_column is None else reader.labels()
        for group in range(piece.part * groups // piece.parts, (piece.part + 1) * groups // piece.parts):
            images = reader.images(group)
            for begin in range(0, len(images), pack.GROUP_ROWS):
                some = images.slice(begin, pack.GROUP_ROWS)
                at = first[group] + begin
                of_these = None if labels is None else labels.slice(at, len(some)).to_pylist()
                yield _Rows(piece.shard, reader, list(range(at, at + len(some))), some, of_these)


def _hash_part(store: ObjectStore, job: Job, source: Corpus) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The hashes of a job's images, sorted; an image without bytes has none."""
    found, ids = [], []
    count = 0
    for run in _runs(source, job):
        count += len(run.rows)
        for row, image in zip(run.rows, run.images, strict=True):
            if image.is_valid and (content := image.as_buffer()).size:
                found.append(hashlib.sha256(content).digest()[:16])
                ids.append((run.shard.ordinal << ROW_BITS) | row)
    high, low = np.frombuffer(b"".join(found), ">u8").astype(np.uint64).reshape(-1, 2).T
    columns = {"high": high, "low": low, "image_id": np.array(ids, np.int64)}
    order = np.lexsort((columns["image_id"], low, high))
    return {HASHES: _parquet({name: column[order] for name, column in columns.items()})}, {"images": count}


def _merge_range(
    store: ObjectStore, between: tuple[int, int], files: list[StoredObject], first: int
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The images, of shard ordinal ``first`` and later, whose hash an earlier image has: their ids, and its id."""
    begin, end = between
    tables = []
    for stored in files:
        with stored.open(store) as file:
            within = [("high", ">=", pa.scalar(begin, pa.uint64())), ("high", "<=", pa.scalar(end - 1, pa.uint64()))]
            tables.append(pq.read_table(file, filters=within, page_checksum_verification=True))
    table = pa.concat_tables(tables)
    high, low, ids = (table[name].to_numpy() for name in ("high", "low", "image_id"))
    order = np.lexsort((ids, low, high))
    high, low, ids = high[order], low[order], ids[order]
    again = np.zeros(len(ids), bool)
    again[1:] = (high[1:] == high[:-1]) & (low[1:] == low[:-1])
    original = ids[np.maximum.accumulate(np.where(again, 0, np.arange(len(ids))))] if len(ids) else ids
    wanted = again & ((ids >> ROW_BITS) >= first)
    ids, original = ids[wanted], original[wanted]
    order = np.argsort(ids)
    data = _parquet({"image_id": ids[order], "original": original[order]})
    return {DUPLICATES: data}, {"duplicates": len(ids)}


def _parquet(columns: dict[str, np.ndarray]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.table(columns),
        sink,
        compression="none",
        use_dictionary=False,
        row_group_size=ROWS_PER_GROUP,
        write_page_checksum=True,
    )
    return sink.getvalue().to_pybytes()


def _pack_part(
    store: ObjectStore,
    job: Job,
    source: Corpus,
    size: int | None,
    files: list[StoredObject],
    guard: "_Guard | None",
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """One output shard (none where nothing is kept), and a line for each image that was left out."""
    originals = _originals(store, job, files)
    named = lru_cache(OPEN_SHARDS)(lambda ordinal: source.open(source.shard(ordinal)))
    look = SafeDecode(near.thumbnail, Label().image_seconds)
    packer = pack.Packer(pack.schema(source.label_column is not None, source.names))
    left_out: list[dict[str, Any]] = []
    counts: dict[str, Any] = {"read": 0, "duplicates": 0, "leaks": 0, "quarantine": {}}
    for run in _runs(source, job):
        counts["read"] += len(run.rows)
        ready: list[dict[str, Any]] = []
        thumbs: list[np.ndarray] = []
        copied = [originals.get((run.shard.ordinal << ROW_BITS) | row) for row in run.rows]
        images = run.images.to_pylist()
        wanted = (image if original is None else None for image, original in zip(images, copied, strict=True))
        name = f"{source.root} {run.shard.path} {run.shard.stamp} {run.rows[0]} {len(images)}"
        outcomes = zip(run.rows, images, copied, list(look(name, wanted)), strict=True)
        for at, (row, image, original, pixels) in enumerate(outcomes):
            place = {"source": _name(source, run.reader, row)}
            if original is not None:
                ordinal, other = original >> ROW_BITS, original & ((1 << ROW_BITS) - 1)
                counts["duplicates"] += 1
                left_out.append({**place, "why": "duplicate", "of": _name(source, named(ordinal), other)})
                continue
            packed = pack.resized(image, size) if size and not isinstance(pixels, decode.Reason) else image
            if isinstance(pixels, decode.Reason) or isinstance(packed, decode.Reason):
                reason = str(pixels if isinstance(pixels, decode.Reason) else packed)
                counts["quarantine"][reason] = counts["quarantine"].get(reason, 0) + 1
                left_out.append({**place, "why": reason})
                continue
            label = {} if run.labels is None else {"label": run.labels[at]}
            ready.append({"image": packed, **label, "sha256": hashlib.sha256(image).digest(), **place})
            thumbs.append(pixels)
        leaks = guard.leaks(np.stack(thumbs)) if guard and thumbs else {}
        for at, row_of_shard in enumerate(ready):
            if at in leaks:
                counts["leaks"] += 1
                left_out.append({"source": row_of_shard["source"], "why": "leak", **leaks[at]})
            else:
                packer.add(row_of_shard)
    facts = {**counts, "images": packer.rows, "bytes": packer.size}
    objects = {pack.IMAGES: packer.bytes()} if packer.rows else {}
    return objects | {LEFT_OUT: b"".join(canonical(line) + b"\n" for line in left_out)}, facts


def _name(corpus: Corpus, reader: ShardReader, row: int) -> str:
    """Where an image lies below its corpus."""
    return reader.where(row).removeprefix(f"{corpus.root}/")


def _originals(store: ObjectStore, job: Job, files: list[StoredObject]) -> dict[int, int]:
    """Duplicates among a job's images: their ids, and the id of the image that came first."""
    ordinals = [piece.shard.ordinal for piece in job.pieces]
    begin, end = min(ordinals) << ROW_BITS, (max(ordinals) + 1) << ROW_BITS
    found: dict[int, int] = {}
    for stored in files:
        with stored.open(store) as file:
            within = [("image_id", ">=", begin), ("image_id", "<", end)]
            table = pq.read_table(file, filters=within, page_checksum_verification=True)
        found |= dict(zip(table["image_id"].to_pylist(), table["original"].to_pylist(), strict=True))
    return found


@dataclass
class _Guard:
    """``near.Guard``, and of each of its images the corpus and the name."""

    guard: near.Guard
    corpora: list[str]
    names: list[str]

    def leaks(self, thumbs: np.ndarray) -> dict[int, dict[str, Any]]:
        """By row of ``thumbs``: the kept-out image that it is a copy of, and how far from it."""
        found = self.guard.copies(thumbs)
        return {
            row: {"of": self.names[of], "corpus": self.corpora[of], "distance": round(1 - score, 4)}
            for row, of, score in zip(found.rows.tolist(), found.of.tolist(), found.scores.tolist(), strict=True)
        }


def _look(corpus: Corpus, name: str, shard: Shard) -> tuple[str, np.ndarray, list[str], int]:
    """A kept-out shard: its corpus, thumbnails, uint8 (n, 32, 32, 3), and names of its images, how many are bad."""
    reader = corpus.open(shard)
    look = SafeDecode(near.thumbnail, Label().image_seconds)
    seen = (
        pixels
        for group in range(len(reader.group_rows))
        for pixels in look(f"{corpus.root} {shard.path} {shard.stamp} {group}", reader.images(group).to_pylist())
    )
    thumbs = []
    names = []
    bad = 0
    for row, pixels in enumerate(seen):
        if isinstance(pixels, decode.Reason):
            bad += 1
        else:
            thumbs.append(pixels)
            names.append(_name(corpus, reader, row))
    return name, np.array(thumbs, np.uint8).reshape(-1, near.SIDE, near.SIDE, 3), names, bad


def _build(*seen: tuple[str, np.ndarray, list[str], int]) -> tuple[_Guard, dict[str, Any]]:
    """The guard of kept-out shards, and what the summary says of it."""
    guard = near.Guard(np.concatenate([thumbs for _, thumbs, _, _ in seen]))
    corpora = [corpus for corpus, _, names, _ in seen for _ in names]
    names = [name for _, _, names, _ in seen for name in names]
    unreadable = sum(bad for _, _, _, bad in seen)
    facts = {"images": len(names), "unreadable": unreadable, "distance": round(1 - guard.score, 4)}
    return _Guard(guard, corpora, names), {"keep_out": facts}


def left_out(store: ObjectStore, commits: Sequence[Commit]) -> Iterator[dict[str, Any]]:
    """Every image that was left out, in order: its place, why, and of what it is a copy."""
    for part in (part for commit in commits for part in commit.parts):
        for line in part.objects[LEFT_OUT].read(store).splitlines():
            yield json.loads(line)
