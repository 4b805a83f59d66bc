"""The tasks of an ingest: each reads its run of the source, makes one part of a stage and publishes it."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ray_ns.config import Label
from ray_ns.corpora import pack
from ray_ns.corpora.corpus import ROW_BITS, Corpus, Shard, ShardReader
from ray_ns.engine.workers.slices import Job
from ray_ns.images import decode, leak_guard
from ray_ns.images.isolate import SafeDecode
from ray_ns.seals import canonical
from ray_ns.store.commit import Output, StoredObject
from ray_ns.store.lease import Holder, fence
from ray_ns.store.objects import ObjectStore

HASHES, DUPLICATES, LEFT_OUT = "hashes", "duplicates", "left_out.jsonl"
ROWS_PER_GROUP = 16_384  # of a file of hashes: the least that is read for a range
OPEN_SHARDS = 16  # shards held open to look up the names of originals


def publish_part(
    numbered: tuple[int, Any], place: tuple[ObjectStore, str, Holder], make: Callable[..., Any], *shared: Any
) -> Any:
    """The task itself: make one part of the stage at ``place`` and publish it. Its facts."""
    number, item = numbered
    store, prefix, holder = place
    objects, facts = make(item, store, *shared)
    return Output(store, prefix, fence(store, holder)).publish(number, objects, facts).facts


@dataclass(frozen=True)
class _Rows:
    """Some rows of one row group of a shard: their numbers in the shard, their images, and labels if there are any."""

    shard: Shard
    reader: ShardReader
    rows: list[int]
    images: pa.Array
    labels: list[int | None] | None


def _runs(source: Corpus, job: Job) -> Iterator[_Rows]:
    """All rows of a job in order, in small runs."""
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


def hash_part(job: Job, store: ObjectStore, source: Corpus) -> tuple[dict[str, bytes], dict[str, Any]]:
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


def merge_range(
    between: tuple[int, int], store: ObjectStore, files: list[StoredObject], first: int
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The ids of images whose hash an earlier image has, and the id of that image.

    ``between``: a range of hashes (their high 64 bits). ``first``: ids of earlier shard ordinals are not returned.
    """
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


def pack_part(
    job: Job,
    store: ObjectStore,
    source: Corpus,
    size: int | None,
    files: list[StoredObject],
    guard: "NamedGuard | None",
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """One output shard (none if no image is kept), and a line for each image that is left out."""
    originals = _originals(store, job, files)
    named = lru_cache(OPEN_SHARDS)(lambda ordinal: source.open(source.shard(ordinal)))
    look = SafeDecode(leak_guard.thumbnail, Label().image_seconds)
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
    """The path of an image below its corpus."""
    return reader.where(row).removeprefix(f"{corpus.root}/")


def _originals(store: ObjectStore, job: Job, files: list[StoredObject]) -> dict[int, int]:
    """The duplicates among a job's images: id to the id of the image that came first."""
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
class NamedGuard:
    """``leak_guard.Guard``, with the corpus and the name of each of its images."""

    guard: leak_guard.Guard
    corpora: list[str]
    names: list[str]

    def leaks(self, thumbs: np.ndarray) -> dict[int, dict[str, Any]]:
        """For each row of ``thumbs`` that is a copy of a kept-out image: that image, and the distance to it."""
        found = self.guard.copies(thumbs)
        return {
            row: {"of": self.names[of], "corpus": self.corpora[of], "distance": round(1 - score, 4)}
            for row, of, score in zip(found.rows.tolist(), found.of.tolist(), found.scores.tolist(), strict=True)
        }


def thumbnails(kept_out: tuple[Corpus, str, Shard]) -> tuple[str, np.ndarray, list[str], int]:
    """Of a kept-out shard: its corpus, thumbnails (uint8, n x 32 x 32 x 3), their names, how many are unreadable."""
    corpus, name, shard = kept_out
    reader = corpus.open(shard)
    look = SafeDecode(leak_guard.thumbnail, Label().image_seconds)
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
    return name, np.array(thumbs, np.uint8).reshape(-1, leak_guard.SIDE, leak_guard.SIDE, 3), names, bad


def build_guard(*seen: tuple[str, np.ndarray, list[str], int]) -> tuple[NamedGuard, dict[str, Any]]:
    """The guard of all kept-out shards, and its figures for the summary."""
    guard = leak_guard.Guard(np.concatenate([thumbs for _, thumbs, _, _ in seen]))
    corpora = [corpus for corpus, _, names, _ in seen for _ in names]
    names = [name for _, _, names, _ in seen for name in names]
    unreadable = sum(bad for _, _, _, bad in seen)
    facts = {"images": len(names), "unreadable": unreadable, "distance": round(1 - guard.score, 4)}
    return NamedGuard(guard, corpora, names), {"keep_out": facts}
