"""The tasks of a selection, each over a run of label shards: count, find ties, choose, compare with labels before.

Ray's workers import this module before their first shard, so it loads nothing that they do not need.
"""

import re
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ray_ns.artifacts.labels import LABELS, labelled, with_labelled_rows
from ray_ns.artifacts.selection import ENDS, SELECTION, Edges, ends_of
from ray_ns.engine import metrics
from ray_ns.labels import counting, files, schema
from ray_ns.labels.arrow import as_arrow, as_numpy
from ray_ns.labels.selection import carry, passes, rules, terms, ties
from ray_ns.seals import sha256
from ray_ns.store.commit import Output, Part, StoredObject
from ray_ns.store.lease import Holder, fence
from ray_ns.store.objects import ObjectStore

WRITERS = 4  # threads of a task that put finished parts, which is mostly waiting for the disk
COLUMNS = ("image_id", "label", "confidence")
CARRIED = ("image_id", "copies")
IDS_AND_LABELS = ("image_id", "label")


@dataclass(frozen=True)
class Shard:
    """One label shard; ``before``: earlier labels of its images; ``chosen``: the selection they are restricted to."""

    part: int
    labels: Part
    before: Part | None
    chosen: tuple[Part, Part] | None


@dataclass(frozen=True)
class Found:
    """What shards gave: their ``parts`` of the selection by number, and where their ``undecided`` rows are stored.

    ``used``: images and copies of each class in the parts, int64 (2, classes). ``below``: draws below their band, int64
    (classes,).
    """

    parts: dict[int, Part]
    used: np.ndarray
    below: np.ndarray
    undecided: tuple[StoredObject, ...]


def ready() -> None:
    """Does nothing: a worker that is asked for it has loaded this module, and so all that its first shard needs."""


def count(run: list[Shard], store: ObjectStore, asked: terms.Terms) -> np.ndarray:
    """Labels by class and bin, int64 (classes, bins)."""
    metrics.in_worker("select")
    counted = passes.Tally(asked)
    for shard in run:
        key = shard.labels.objects[LABELS].key
        table = labelled(store, shard.labels, COLUMNS if asked.share < 1 else COLUMNS[1:])
        counting.add(counted, of_share(table, asked), key)
    return counted.counts()


def of_share(table: pa.Table, asked: terms.Terms) -> pa.Table:
    """The rows of the share of the pool that may be selected."""
    return table if asked.share == 1 else taken(table, np.flatnonzero(asked.drawn(as_numpy(table["image_id"]))))


def count_ties(run: list[Shard], store: ObjectStore, quota: rules.Quotas, asked: terms.Terms) -> list[ties.Ties]:
    """The ties of each shard that has labels (``ties.Ties``), for the classes that have too many of them."""
    metrics.in_worker("select")
    found = []
    for shard in run:
        ids, labels, confidence = arrays(of_share(labelled(store, shard.labels, COLUMNS), asked), *COLUMNS)
        found.append(ties.in_shard(ids, labels, confidence, quota))
    return [it for it in found if it is not None]


def choose(
    run: list[Shard],
    store: ObjectStore,
    ends: passes.Bounds,
    quota: rules.Quotas,
    asked: terms.Terms,
    prefix: str,
    holder: Holder,
) -> Found:
    """Write the rows of each shard that are surely selected, and set aside those that only all shards can decide.

    They are set aside in the store, so that no process has to hold them all.
    """
    metrics.in_worker("select")
    check = fence(store, holder)
    stage = Output(store, prefix, check)
    carried = run[0].chosen and Edges(store, run[0].chosen[1], CARRIED)
    classes = len(ends.copies)
    used, below = np.zeros((2, classes), np.int64), np.zeros(classes, np.int64)
    waiting: deque[tuple[int, Future[Part]]] = deque()
    parts: dict[int, Part] = {}
    undecided: list[pa.Table] = []
    with ThreadPoolExecutor(WRITERS) as writers:
        for shard in run:
            table, at = with_labelled_rows(store, shard.labels, (*COLUMNS, *schema.SOFT))
            if asked.share < 1:
                at = at[asked.drawn(as_numpy(table["image_id"])[at])]
            ids, labels, confidence = arrays(taken(table.select(COLUMNS), at), *COLUMNS)
            if carried and shard.chosen:
                rows, copies = carry.carried_over(ids, *arrays(carried.joined(shard.part, shard.chosen[0]), *CARRIED))
                left, now = rows[:0], used_of(labels[rows], copies, classes)
            else:
                made = passes.split(ids, labels, confidence, ends, asked.seed)
                rows, copies, left = made.rows, made.copies, made.undecided
                now = np.array([made.images, made.images * ends.copies + made.below])
                below += made.below
            used += now
            # Encoded here: in the threads it would compete with this thread for the interpreter's lock.
            part = encoded(stage, with_copies(table, at[rows], copies), now)
            waiting.append((shard.part, writers.submit(stage.put, shard.part, *part)))
            if len(waiting) > 2 * WRITERS:
                number, written = waiting.popleft()
                parts[number] = written.result()
            of_shard = as_arrow(np.full(len(left), shard.part, np.int32))
            undecided.append(taken(table, at[left]).append_column("part", of_shard))
        parts |= {number: written.result() for number, written in waiting}
    check()
    aside = set_aside(store, prefix, run[0].part, gathered(undecided, quota))
    pa.default_memory_pool().release_unused()  # an idle worker's memory adds to the peak of the machine
    return Found(parts, used, below, (aside,))


def churn(run: list[Shard], store: ObjectStore, classes: int) -> np.ndarray:
    """How labels changed, int64 (3, classes)."""
    metrics.in_worker("select")
    found = np.zeros((3, classes), np.int64)
    for shard in run:
        assert shard.before is not None
        ids, labels = arrays(labelled(store, shard.labels, IDS_AND_LABELS), *IDS_AND_LABELS)
        ids_before, labels_before = arrays(labelled(store, shard.before, IDS_AND_LABELS), *IDS_AND_LABELS)
        found += carry.churn(ids, labels, ids_before, labels_before, classes)
    return found


def together(several: Iterable[Found]) -> Found:
    """The results of all runs as one."""
    found = list(several)
    parts = {number: part for it in found for number, part in it.parts.items()}
    undecided = tuple(stored for it in found for stored in it.undecided)
    used, below = np.sum([it.used for it in found], 0), np.sum([it.below for it in found], 0)
    return Found(parts, used, below, undecided)


def gathered(tables: Iterable[pa.Table], quota: rules.Quotas) -> pa.Table:
    """Undecided rows as one table. Where they are too many, only those that can still be selected."""
    held: list[pa.Table] = []
    rows, room = 0, ties.EDGE_ROWS
    for table in tables:
        held.append(table)
        rows += table.num_rows
        if rows > room:
            everything = pa.concat_tables(held)
            ids, labels, confidence = arrays(everything, *COLUMNS)
            held = [taken(everything, passes.still_possible(ids, labels, confidence, quota))]
            rows = held[0].num_rows
            room = max(2 * rows, ties.EDGE_ROWS)
    return pa.concat_tables(held)


def set_aside(store: ObjectStore, prefix: str, part: int, undecided: pa.Table) -> StoredObject:
    """Store the undecided rows of shards from ``part`` on until the selection at ``prefix`` is committed."""
    about = files.About.of(undecided)
    data = schema.to_parquet(undecided, about.metadata() if about else {})
    digest = sha256(data)
    stored = StoredObject(f"{place_aside(prefix)}{part:06d}-{digest[:16]}.parquet", digest, len(data))
    store.put(stored.key, data)
    return stored


def numbered(store: ObjectStore, aside: Iterable[StoredObject]) -> Iterator[pa.Table]:
    """The columns that decide about rows set aside, and an int32 ``row``: a number that counts over all tables."""
    end = 0
    for stored in aside:
        table = schema.from_parquet(stored.read(store), stored.key, COLUMNS)
        begin, end = end, end + table.num_rows
        yield table.append_column("row", as_arrow(np.arange(begin, end, dtype=np.int32)))


def picked(store: ObjectStore, aside: Iterable[StoredObject], rows: np.ndarray, copies: np.ndarray) -> pa.Table:
    """The rows with these numbers (``numbered``), ascending, of those that were set aside."""
    found, end = [], 0
    for stored in aside:
        table = schema.from_parquet(stored.read(store), stored.key)
        begin, end = end, end + table.num_rows
        mine = slice(*np.searchsorted(rows, [begin, end]))
        found.append(with_copies(table, rows[mine] - begin, copies[mine]))
    return pa.concat_tables(found)


def place_aside(prefix: str) -> str:
    """The prefix of undecided rows, until the selection at ``prefix`` is committed."""
    return f"{prefix}/undecided/"


def is_aside(key: str) -> bool:
    """Whether this is the key of rows that were set aside."""
    return re.search(r"/undecided/\d{6,}-[0-9a-f]{16}\.parquet$", key, re.ASCII) is not None


def encoded(stage: Output, chosen: pa.Table, used: np.ndarray) -> tuple[dict[str, bytes], dict[str, Any]]:
    """A part of a selection for ``Output.put``; the commit alone records it, since milliseconds make it anew.

    It is written as the labels are that it was chosen from.
    """
    images, copies = used.sum(1).tolist()
    about, lineage = files.About.of(chosen), {"selection": stage.prefix}
    data = files.to_parquet(chosen, about, lineage) if about else schema.to_parquet(chosen, lineage)
    return {SELECTION: data}, {"images": images, "copies": copies}


def encoded_last(
    stage: Output, chosen: pa.Table, used: np.ndarray, shards: int
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The last part, of all ``shards`` label shards. Whose rows are whose is a fact; in formats 1 and 2 a column."""
    if files.About.of(chosen) is None:
        return encoded(stage, chosen, used)
    objects, facts = encoded(stage, chosen.drop_columns(["part"]), used)
    return objects, {**facts, ENDS: ends_of(as_numpy(chosen["part"]), shards)}


def with_copies(table: pa.Table, rows: np.ndarray, copies: np.ndarray) -> pa.Table:
    """The chosen rows."""
    return taken(table, rows).append_column("copies", as_arrow(copies))


def taken(table: pa.Table, rows: np.ndarray) -> pa.Table:
    """Rows by their numbers, which are not checked."""
    return pc.take(table, as_arrow(rows), boundscheck=False)


def used_of(labels: np.ndarray, copies: np.ndarray, classes: int) -> np.ndarray:
    """Images, and copies, of each class: int64 (2, classes)."""
    images = np.bincount(labels, minlength=classes)
    return np.stack([images, np.bincount(labels, copies, minlength=classes).astype(np.int64)])


def arrays(table: pa.Table, *names: str) -> list[np.ndarray]:
    """Columns without nulls."""
    return [as_numpy(table[name]) for name in names]
