"""Filter and balance the committed labels of a pool: the passes of ``labels.select`` as Ray tasks over label shards.

A task takes a run of shards and writes what they surely give, a part of the selection for each; what it cannot decide
alone, some thousandths of the labels, comes back to the driver, which decides it and writes it as one part more
(``engine.selected`` puts both together). That pass reads whole shards and checks their sha256 (page checksums do not
cover a Parquet footer); those before it, where they are needed, read columns, by page checksums. What is counted
serves every threshold on the grid of 0.01, so it is a stage of its own beside the labels, ``counts``, that the
labelling itself has made where it was not interrupted.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from ray_ns.config import results_of
from ray_ns.engine import counts
from ray_ns.engine.label import LABELS, SELECTION
from ray_ns.engine.selected import Edges
from ray_ns.engine.session import Session
from ray_ns.errors import InputError, IntegrityError
from ray_ns.labels import schema
from ray_ns.labels import select as rule
from ray_ns.store import run as runs
from ray_ns.store.commit import Commit, Part, Stage, StoredObject, find_commit
from ray_ns.store.manifest import digest
from ray_ns.store.objects import ObjectStore, open_store

SHARDS_PER_TASK = (16, 256)  # at least, so that few histograms travel; at most, so that a lost task costs little
TASKS_PER_CPU = 8
WRITERS = 4  # threads of a task that put finished shards, which is mostly waiting for the disk
COLUMNS = ("image_id", "label", "confidence")
CARRIED = ("image_id", "copies")


@dataclass(frozen=True)
class Shard:
    """One label shard; earlier labels of the same images and the selection they are restricted to, where there are."""

    part: int
    labels: StoredObject
    before: StoredObject | None
    chosen: tuple[StoredObject, StoredObject] | None


@dataclass(frozen=True)
class Found:
    """What shards gave: their ``parts`` of the selection by number, and the rows of theirs that are ``undecided``.

    ``used``: images and copies of each class in the parts, int64 (2, classes). ``below``: draws below their band, int64
    (classes,).
    """

    parts: dict[int, Part]
    used: np.ndarray
    below: np.ndarray
    undecided: pa.Table


def select(
    session: Session, prefix: str, labels: Commit, before: Commit | None = None, chosen: Commit | None = None
) -> Commit:
    """The committed selection from ``labels``: a part per label shard, and one of what only all could decide.

    In its summary are the counts per class.

    ``before``: earlier labels of the same pool, for how they changed. ``chosen``: the selection to which these labels
    were restricted; its images and copies stay as they are, with the new labels.
    """
    config = session.config
    inputs = {
        "labels": labels.digest,
        "before": before.digest if before else None,
        "chosen": chosen.digest if chosen else None,
        "select": results_of(config.select),
        "rule": rule.VERSION,
        "seed": config.run.seed,
    }
    asked = rule.terms(config.select, config.data.classes, config.run.seed)
    if chosen:
        asked = rule.everything(config.data.classes, config.run.seed)

    def work(stage: Stage) -> tuple[dict[str, Any], list[Part]]:
        session.reporter.begin(prefix, (2 + bool(before)) * len(labels.parts), "label shards read")
        shards = _Shards(session, labels, before, chosen)
        if asked.on_grid:
            counted = counts.keep(session, labels, asked.classes, lambda: _counted(shards, asked))
        else:
            counted = _counted(shards, asked)
        quota = rule.quotas(counted, asked)
        _check(quota, asked, labels)
        near, ends = quota, rule.bounds(quota, asked)
        if asked.rule == "paper" and rule.crowded(quota).any():
            near, ends = rule.narrowed(quota, ends, list(chain.from_iterable(shards.each(_ties, quota))))
        shards.passed = len(labels.parts)
        found = _together(shards.each(_choose, ends, near, asked.seed, prefix), near)
        table, reaches = _settled(found, near, asked)
        parts = {**found.parts, len(labels.parts): _put(stage, len(labels.parts), table)}
        used = found.used + _used(table, asked.classes)
        summary = _summary(quota, reaches, used, asked, labels, bool(chosen))
        if before:
            summary["churn"] = _churn_summary(sum(shards.each(_churn, asked.classes)))
        session.reporter.end(f"{summary['images']:,} images kept, {summary['copies']:,} with copies")
        return summary, [parts[part] for part in sorted(parts)]

    return session.ensure(prefix, inputs, work)


def select_again(session: Session, number: int | None) -> Commit:
    """The selection from a round's committed labels by other settings than the run's; it lies beside the run's own.

    ``number``: the round; None: the last one whose whole pool is labelled. No image is read and no teacher asked.
    """
    store, settings = session.store, results_of(session.config.select)
    last = 1 if session.config.run.mode == "filter_once" else session.config.run.rounds
    if number is not None and not 1 <= number <= last:
        raise InputError(f"round {number}: the pool is labelled in rounds 1 to {last} of this run, at most.")
    rounds = f"{session.place}rounds"
    found = {at: find_commit(store, f"{rounds}/{at}/label") for at in range(1, last + 1)}
    number = number or max((at for at, labels in found.items() if labels), default=1)
    labels = found[number]
    if labels is None:
        raise InputError(f"{store.url}: round {number} has no labels yet. Let 'ray-ns run --until label' make them.")
    own = (runs.read(store, runs.RUN) or {})["config"]["select"] == settings
    place = f"{rounds}/{number}/select" + ("" if own else f"-{digest(settings)[:12]}")
    return select(session, place, labels, found.get(number - 1))


class _Shards:
    """The shards of a commit, cut into runs for the cluster's CPUs; ``each`` makes one pass over them."""

    def __init__(self, session: Session, labels: Commit, before: Commit | None, chosen: Commit | None) -> None:
        session.ray()
        import ray

        shards = [
            Shard(
                part,
                it.objects[LABELS],
                before.parts[part].objects[LABELS] if before else None,
                (chosen.parts[part].objects[SELECTION], chosen.parts[-1].objects[SELECTION]) if chosen else None,
            )
            for part, it in enumerate(labels.parts)
        ]
        least, most = SHARDS_PER_TASK
        tasks = TASKS_PER_CPU * max(int(ray.cluster_resources().get("CPU", 1)), 1)
        size = min(max(-(-len(shards) // tasks), least), most)
        self._session, self.passed = session, 0
        self._runs = [shards[at : at + size] for at in range(0, len(shards), size)]

    def each(self, function: Callable[..., Any], *args: Any) -> Iterator[Any]:
        """The results of ``function(store, run of shards, *args)`` for every run, in whatever order they come."""
        import ray

        task = ray.remote(_on_run)
        shared = [ray.put(arg) for arg in args]
        waiting = {task.remote(function, self._session.store.url, run, *shared): len(run) for run in self._runs}
        while waiting:
            (done,), _ = ray.wait(list(waiting), num_returns=1)
            self.passed += waiting.pop(done)
            self._session.reporter.progress(self.passed)
            yield ray.get(done)


def _on_run(function: Callable[..., Any], store_url: str, run: list[Shard], *args: Any) -> Any:
    return function(open_store(store_url), run, *args)


def _labelled(store: ObjectStore, stored: StoredObject, columns: tuple[str, ...] = COLUMNS) -> pa.Table:
    """The rows of a label shard that have a label, by its page checksums alone."""
    with stored.open(store) as file:
        return _with_label(schema.from_parquet(file, stored.key, columns, lists=False))


def _with_label(table: pa.Table) -> pa.Table:
    return table.filter(pa.compute.is_valid(table["label"])) if table["label"].null_count else table


def _arrays(table: pa.Table, *names: str) -> list[np.ndarray]:
    return [table[name].to_numpy() for name in names]


def _counted(shards: _Shards, asked: rule.Terms) -> np.ndarray:
    return sum(shards.each(_count, asked), np.zeros((asked.classes, rule.BINS[asked.rule]), np.int64))


def _count(store: ObjectStore, run: list[Shard], asked: rule.Terms) -> np.ndarray:
    counted = rule.Tally(asked)
    for shard in run:
        counts.add(counted, _labelled(store, shard.labels, ("label", "confidence")), shard.labels.key)
    return counted.counts()


def _ties(store: ObjectStore, run: list[Shard], quota: rule.Quotas) -> list[rule.Ties]:
    found = []
    for shard in run:
        ids, labels, confidence = _arrays(_labelled(store, shard.labels), *COLUMNS)
        found.append(rule.ties(ids, labels, confidence, quota))
    return [it for it in found if it is not None]


def _choose(
    store: ObjectStore, run: list[Shard], ends: rule.Bounds, quota: rule.Quotas, seed: int, prefix: str
) -> Found:
    """Write what each of a run of shards surely gives."""
    classes = len(ends.copies)
    stage = Stage(store, prefix, lambda: None)
    carried = run[0].chosen and Edges(store, run[0].chosen[1], CARRIED)
    waiting: deque[tuple[int, Future[Part]]] = deque()
    parts: dict[int, Part] = {}

    def split(shard: Shard) -> Found:
        whole = shard.labels.read(store)
        table = _with_label(schema.from_parquet(whole, shard.labels.key, (*COLUMNS, *schema.SOFT), lists=False))
        ids, labels, confidence = _arrays(table, *COLUMNS)
        if carried and shard.chosen:
            earlier = carried.joined(shard.part, shard.chosen[0])
            rows, copies = rule.carry(ids, *_arrays(earlier, *CARRIED))
            made = rule.Split(rows, copies, rows[:0], np.zeros(classes, np.int64))
        else:
            made = rule.split(ids, labels, confidence, ends, seed)
        chosen = _chosen(table, made.rows, made.copies)
        waiting.append((shard.part, writers.submit(_put, stage, shard.part, chosen)))
        if len(waiting) > 2 * WRITERS:
            part, written = waiting.popleft()
            parts[part] = written.result()
        undecided = table.take(pa.array(made.undecided))
        number = pa.array(np.full(undecided.num_rows, shard.part, np.int32))
        return Found({}, _used(chosen, classes), made.below, undecided.append_column("part", number))

    with ThreadPoolExecutor(WRITERS) as writers:
        found = _together(map(split, run), quota)
        parts |= {part: written.result() for part, written in waiting}
    return replace(found, parts=parts)


def _together(several: Iterable[Found], quota: rule.Quotas) -> Found:
    """``several`` as one; of too many undecided rows those alone that can still be kept."""
    classes = len(quota.kept)
    used, below = np.zeros((2, classes), np.int64), np.zeros(classes, np.int64)
    parts: dict[int, Part] = {}
    tables: list[pa.Table] = []
    rows, room = 0, rule.EDGE_ROWS
    for found in several:
        parts |= found.parts
        used += found.used
        below += found.below
        tables.append(found.undecided)
        rows += found.undecided.num_rows
        if rows > room:
            table = pa.concat_tables(tables)
            ids, labels, confidence = _arrays(table, *COLUMNS)
            tables = [table.take(pa.array(rule.contenders(ids, labels, confidence, quota)))]
            rows = tables[0].num_rows
            room = max(2 * rows, rule.EDGE_ROWS)
    return Found(parts, used, below, pa.concat_tables(tables))


def _settled(found: Found, quota: rule.Quotas, asked: rule.Terms) -> tuple[pa.Table, np.ndarray]:
    """The undecided rows that are selected, in the order of label shards, and how far each class goes."""
    ids, labels, confidence = _arrays(found.undecided, *COLUMNS)
    rows, copies, reaches = rule.settle(ids, labels, confidence, found.below, quota, asked)
    order = np.argsort(found.undecided["part"].to_numpy()[rows], kind="stable")
    return _chosen(found.undecided, rows[order], copies[order]), reaches


def _put(stage: Stage, part: int, chosen: pa.Table) -> Part:
    """Store a part of a selection. Milliseconds made it, so nothing records it before the commit names it."""
    data = schema.to_parquet(chosen, {"selection": stage.prefix})
    facts = {"images": chosen.num_rows, "copies": pa.compute.sum(chosen["copies"]).as_py() or 0}
    return stage.put(part, {SELECTION: data}, facts)


def _chosen(table: pa.Table, rows: np.ndarray, copies: np.ndarray) -> pa.Table:
    chosen = table.take(pa.array(rows)).append_column("copies", pa.array(copies))
    # Whoever is selected has a label; to write that down row by row would take a fifth longer.
    whole_rows = pa.schema([field.with_nullable(False) for field in chosen.schema])
    return pa.Table.from_arrays(chosen.columns, schema=whole_rows)


def _used(chosen: pa.Table, classes: int) -> np.ndarray:
    """Images, and copies, of each class: int64 (2, classes)."""
    index, copies = chosen["label"].to_numpy().astype(np.int64), chosen["copies"].to_numpy()
    used = np.bincount(index, minlength=classes)
    return np.stack([used, used + np.bincount(index, copies - 1, minlength=classes).astype(np.int64)])


def _churn(store: ObjectStore, run: list[Shard], classes: int) -> np.ndarray:
    found = np.zeros((3, classes), np.int64)
    for shard in run:
        assert shard.before is not None
        ids, labels = _arrays(_labelled(store, shard.labels), "image_id", "label")
        earlier = _arrays(_labelled(store, shard.before), "image_id", "label")
        found += rule.churn(ids, labels, earlier[0], earlier[1], classes)
    return found


def _check(quota: rule.Quotas, asked: rule.Terms, labels: Commit) -> None:
    """Raise where the labels read are not those that were committed, or nothing can be selected from them."""
    if quota.candidates.tolist() != labels.summary["per_class"]:
        raise IntegrityError(
            f"{labels.stage}: the label shards hold {int(quota.candidates.sum())} labels, not those per class that its "
            f"commit names. Restore them from a backup, or delete its folder and run again to label anew."
        )
    if not quota.kept.any():
        raise InputError(
            f"select.threshold = {float(asked.threshold.min()):g}: no image of the pool has a label so confident (of "
            f"{int(quota.candidates.sum())}), or every quota is 0. Lower it, or train the teacher longer."
        )


def _summary(
    quota: rule.Quotas, reaches: np.ndarray, used: np.ndarray, asked: rule.Terms, labels: Commit, carried: bool
) -> dict[str, Any]:
    """The selection in figures, lists of one value per class. Raises where they do not add up."""
    kept, copies = used
    exact = asked.rule == "paper" and not carried
    if exact and not (np.array_equal(kept, quota.kept) and np.array_equal(copies, quota.totals)):
        raise IntegrityError(f"{labels.stage}: its label shards changed while they were read; run the command again.")
    return {
        "rule": "carried over" if carried else asked.rule,
        "images": int(kept.sum()),
        "copies": int(copies.sum()),
        "dropped": {
            "below_threshold": int((quota.candidates - quota.over).sum()),
            "beyond_quota": int((quota.over - kept).sum()),
        },
        "quarantine": labels.summary["quarantine"],
        "per_class": {
            "candidates": quota.candidates.tolist(),
            "over_threshold": quota.over.tolist(),
            "kept": kept.tolist(),
            "with_copies": copies.tolist(),
            "threshold": _numbers(asked.threshold),
            "cut": _numbers(reaches),
            "confidence": {
                f"q{round(100 * share)}": _numbers(quota.quantiles[:, at]) for at, share in enumerate(rule.QUANTILES)
            },
        },
    }


def _churn_summary(found: np.ndarray) -> dict[str, Any]:
    """``churn.compared`` images had a label before too; lists by the class before, ``arrived`` by the class now."""
    compared, left, arrived = found
    return {
        "compared": int(compared.sum()),
        "changed": int(left.sum()),
        "per_class": {"compared": compared.tolist(), "left": left.tolist(), "arrived": arrived.tolist()},
    }


def _numbers(values: np.ndarray) -> list[float | None]:
    """Floats as JSON has them: the shortest that say the same float32, None for NaN."""
    return [None if np.isnan(it) else float(str(it)) for it in values.astype(np.float32)]
