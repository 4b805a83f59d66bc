"""Which image got which label: label parts, selection parts and the names of images, joined part by part.

Memory holds one part. The names come from the pool itself, so it has to be there; no image is read.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import repeat
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ray_ns.artifacts.labels import LABELS, XXH3, Labels
from ray_ns.artifacts.selection import Selection
from ray_ns.artifacts.selection import tables as selected_tables
from ray_ns.corpora import origins
from ray_ns.corpora.corpus import Corpus, split_ids
from ray_ns.corpora.known import IN
from ray_ns.errors import InputError, IntegrityError
from ray_ns.export import columns, files, runs
from ray_ns.export.duplicates import Duplicates
from ray_ns.labels import schema
from ray_ns.labels.arrow import as_numpy
from ray_ns.observe import Reporter
from ray_ns.store import layout
from ray_ns.store.commit import find_commit, planned_inputs
from ray_ns.store.fork import open_run
from ray_ns.store.objects import ObjectStore
from ray_ns.store.status import existing

LONG = 20  # label shards, of about 100,000 images each
READ = ("image_id", "label", "confidence", "quarantine", *schema.SOFT)


@dataclass(frozen=True)
class Wanted:
    """Which rows are wanted: only labels at least so confident (``least``, 0..1), only ``selected`` ones."""

    least: float | None = None
    selected: bool = False


@dataclass
class Counts:
    """What was exported, in images: ``rows`` written, and all by what became of them."""

    rows: int = 0
    labelled: int = 0
    unreadable: int = 0
    known: int = 0
    selected: int | None = None
    left_out: int = 0

    def add(self, table: pa.Table, kept: pa.Table) -> None:
        """Count a part: all of it, and what is ``kept`` of it."""
        known = pc.sum(pc.is_in(table["reason"], pa.array([*IN.values()]))).as_py() or 0
        labelled = len(table) - table["label"].null_count
        self.rows += len(kept)
        self.labelled += labelled
        self.known += known
        self.unreadable += len(table) - labelled - known
        self.left_out += len(table) - len(kept)
        if table["selected"].null_count < len(table):
            self.selected = (self.selected or 0) + (pc.sum(table["selected"]).as_py() or 0)

    def in_words(self) -> str:
        """One line."""
        words = [f"{self.rows:,} rows", f"{self.labelled:,} images labelled", f"{self.unreadable:,} unreadable"]
        words += [f"{self.known:,} known (labelled, validation or test images)"] if self.known else []
        words += [f"{self.selected:,} selected"] if self.selected is not None else []
        words += [f"{self.left_out:,} left out by --min or --selected"] if self.left_out else []
        return ", ".join(words)

    def as_json(self) -> dict[str, Any]:
        """The same as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Labelled:
    """The labels of a pool in ``store``, the selection of them where there is one, and the pool itself.

    ``names``: of the classes, by number; None where they have none.
    """

    store: ObjectStore
    labels: Labels
    selection: Selection | None
    pool: Corpus
    names: Sequence[str] | None

    @classmethod
    def of_run(cls, url: str, number: int | None, best: bool, pool: str | None, reporter: Reporter) -> "Labelled":
        """Those of the run or prediction at ``url`` that are asked for.

        ``number``: the round; None: the last one that labelled the whole pool. ``best``: those of the best network.
        ``pool``: where the pool lies now, if elsewhere. Raises ``InputError`` where there are none, or no pool.
        """
        if number is not None and best:
            raise InputError("--round (number) and --network: give one of them.")
        store = open_run(existing(url))
        place, generation = runs.labels_of(store, number, best, reporter)
        return cls.at(store, place, runs.pool_of(store, pool, generation, reporter))

    @classmethod
    def at(cls, store: ObjectStore, place: str, pool: Corpus) -> "Labelled":
        """Those of the label stage at ``place`` (``rounds/1/label``), whose images are those of ``pool``."""
        labels = find_commit(store, place)
        if labels is None:
            raise InputError(f"{store.url}: {place} is not finished. Run its command again, then ask for its labels.")
        beside = f"{place.rpartition('/')[0]}/select".removeprefix("/")
        chosen = find_commit(store, beside)
        if chosen is not None and (planned_inputs(store, beside) or {}).get("labels") != labels.digest:
            raise IntegrityError(f"{beside} in {store.url} was not made from {place}. Restore both from a backup.")
        names = layout.classes(store).names
        return cls(store, Labels(labels), Selection(chosen) if chosen else None, pool, names)


def tables(of: Labelled) -> Iterator[pa.Table]:
    """A table of ``columns.SCHEMA`` for each label shard: a row per image, in order of ``image_id``."""
    chosen: Iterator[pa.Table | None] = repeat(None)
    thresholds: Sequence[float | None] = ()
    if of.selection is not None:
        chosen = selected_tables(of.store, of.selection.parts, soft=False)
        thresholds = of.selection.summary["per_class"]["threshold"]
    with Duplicates(of.pool) as duplicates:
        for part, selected in zip(of.labels.parts, chosen, strict=False):
            stored = part.objects[LABELS]
            table = schema.from_parquet(stored.read(of.store, part.facts.get(XXH3)), stored.key, READ)
            ids = as_numpy(table["image_id"])
            lie = names_of(of.pool, ids)
            copies = None if selected is None else _copies(ids, selected, stored.key)
            found = {
                "path": origins.below(of.pool.root, lie["path"]),
                **{name: lie[name] for name in ("member", "row", "source")},
                "duplicates": duplicates.of(lie["source"]),
                **columns.of_labels(table, of.names),
                **columns.of_selection(table, copies, thresholds),
            }
            yield pa.table({name: found[name] for name in columns.SCHEMA.names}, schema=columns.SCHEMA)


def names_of(pool: Corpus, ids: np.ndarray) -> pa.Table:
    """Where the images ``ids`` (int64, ascending) lie: the columns of ``corpora.origins``."""
    ordinals, rows = split_ids(ids)
    found, begins = np.unique(ordinals, return_index=True)
    ends = [*begins[1:].tolist(), len(ids)][: len(found)]  # a label shard may hold no image
    names = [
        pool.open(pool.shard(ordinal)).origins(rows[begin:end])
        for ordinal, begin, end in zip(found.tolist(), begins.tolist(), ends, strict=True)
    ]
    return pa.concat_tables(names) if names else origins.SCHEMA.empty_table()


def export(
    of: Labelled,
    path: str | None,
    wanted: Wanted = Wanted(),
    also: files.Sink | None = None,
    reporter: Reporter | None = None,
) -> tuple[Counts, int]:
    """Write the labels to the file ``path`` (.csv, .jsonl, .parquet), which is replaced when all is written.

    ``path``: None writes no file. ``also``: what else takes the rows that are written. ``reporter``: what shows how far
    it is, where there are many, and tells what was changed. Returns what was exported, and how many cells got an
    apostrophe so that no spreadsheet runs them (CSV).
    """
    check(of, wanted)
    counts = Counts()
    with contextlib.ExitStack() as stack:
        sinks = [stack.enter_context(files.writing(path, columns.SCHEMA))] if path is not None else []
        if also is not None:
            sinks.append(also)
        for table in _followed(of, reporter):
            kept = wanted_of(table, wanted)
            counts.add(table, kept)
            for sink in sinks:
                sink.write(kept)
        if also is not None:
            also.close()
    apostrophes = sum(sink.apostrophes for sink in sinks)
    if apostrophes and reporter is not None:
        reporter.note(f"{apostrophes:,} cells began like a formula and have an apostrophe before them in {path}.")
    return counts, apostrophes


def _followed(of: Labelled, reporter: Reporter | None) -> Iterator[pa.Table]:
    """``tables``, with progress where it takes longer than a moment."""
    parts = len(of.labels.parts)
    if reporter is None or parts < LONG:
        yield from tables(of)
        return
    reporter.begin(f"labels of {of.labels.place}", parts, "label shards")
    for done, table in enumerate(tables(of), 1):
        yield table
        reporter.progress(done)
    reporter.end("written")


def in_memory(of: Labelled, wanted: Wanted) -> pa.Table:
    """The rows that are wanted as one table, which holds all of them at once."""
    check(of, wanted)
    return pa.concat_tables([columns.SCHEMA.empty_table(), *(wanted_of(table, wanted) for table in tables(of))])


def check(of: Labelled, wanted: Wanted) -> None:
    """Raise ``InputError`` where what is wanted cannot be had of these labels."""
    if wanted.least is not None and not 0 <= wanted.least <= 1:
        raise InputError(f"--min {wanted.least:g}: expected a confidence from 0 to 1.")
    if wanted.selected and of.selection is None:
        raise InputError(f"--selected: nothing is selected of {of.labels.place}. Leave it out, or give --min 0.7.")


def wanted_of(table: pa.Table, wanted: Wanted) -> pa.Table:
    """The rows that are wanted."""
    if wanted.least is not None:
        table = table.filter(pc.greater_equal(table["confidence"], pa.scalar(wanted.least, pa.float32())))
    return table.filter(table["selected"]) if wanted.selected else table


def _copies(ids: np.ndarray, selected: pa.Table, key: str) -> np.ndarray:
    """How many copies of each image are selected, int64; ``selected``: rows of some of ``ids``."""
    copies = np.zeros(len(ids), np.int64)
    chosen = as_numpy(selected["image_id"])
    at = np.searchsorted(ids, chosen)
    if len(chosen) and (at[-1] >= len(ids) or (ids[at] != chosen).any()):
        raise IntegrityError(f"{key}: an image is selected that has no label there. Restore the run from a backup.")
    copies[at] = as_numpy(selected["copies"])
    return copies
