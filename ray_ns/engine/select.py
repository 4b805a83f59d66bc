"""Filter and balance the committed labels of a pool: the passes of ``labels.select`` as Ray tasks over label shards.

A task takes a run of shards and gives back one small result for all of them; what a shard's selection holds is written
by the task itself, so no label crosses the object store. The last pass reads whole shards and checks their sha256
before anything is committed (page checksums do not cover a Parquet footer), those before it read the columns they
need, with page checksums. What the first pass counts serves every threshold on the grid of 0.01, so it is a stage of
its own beside the labels, ``counts``, that the labelling itself has made where it was not interrupted.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np
import pyarrow as pa

from ray_ns.config import results_of
from ray_ns.engine import counts
from ray_ns.engine.label import LABELS, SELECTION
from ray_ns.engine.session import Session
from ray_ns.errors import InputError, IntegrityError
from ray_ns.labels import schema
from ray_ns.labels import select as rule
from ray_ns.store import run as runs
from ray_ns.store.commit import Commit, Stage, StoredObject, find_commit
from ray_ns.store.lease import fence
from ray_ns.store.manifest import digest
from ray_ns.store.objects import ObjectStore, open_store

SHARDS_PER_TASK = (16, 256)  # at least, so that few histograms travel; at most, so that a lost task costs little
TASKS_PER_CPU = 8
MERGED = 8  # looks that are held until they are made one
WRITERS = 4  # threads of a task that put finished shards, which is mostly waiting for the disk
COLUMNS = ("image_id", "label", "confidence")


@dataclass(frozen=True)
class Shard:
    """One label shard; earlier labels of the same images and the selection they are restricted to, where there are."""

    part: int
    labels: StoredObject
    before: StoredObject | None
    chosen: StoredObject | None


def select(
    session: Session, prefix: str, labels: Commit, before: Commit | None = None, chosen: Commit | None = None
) -> Commit:
    """The committed selection from ``labels``: one part per label shard, and in its summary the counts per class.

    ``before``: earlier labels of the same pool, for how they changed. ``chosen``: the selection to which these labels
    were restricted; its images and copies stay as they are, with the new labels.
    """
    config = session.config
    inputs = {
        "labels": labels.digest,
        "before": before.digest if before else None,
        "chosen": chosen.digest if chosen else None,
        "select": results_of(config.select),
        "seed": config.run.seed,
    }
    asked = rule.terms(config.select, config.data.classes, config.run.seed)
    if chosen:
        asked = rule.everything(config.data.classes, config.run.seed)

    def work(stage: Stage) -> tuple[dict[str, Any], int]:
        looks = asked.rule == "paper"
        session.reporter.begin(prefix, (2 + looks + bool(before)) * len(labels.parts), "label shards read")
        shards = _Shards(session, labels, before, chosen)
        if asked.on_grid:
            counted = counts.keep(session, labels, asked.classes, lambda: _counted(shards, asked))
        else:
            counted = _counted(shards, asked)
        shards.passed = len(labels.parts)
        quota = rule.quotas(counted, asked)
        _check(quota, asked, labels)
        near, seen = _seen(shards, quota, asked) if looks else (quota, None)
        ends = rule.plan(near, seen, asked)
        used = sum(shards.each(_choose, ends, asked.seed, prefix, session.lease.epoch))
        summary = _summary(quota, ends, used, asked, labels, bool(chosen))
        if before:
            summary["churn"] = _churn_summary(sum(shards.each(_churn, asked.classes)))
        session.reporter.end(f"{summary['images']:,} images kept, {summary['copies']:,} with copies")
        return summary, len(labels.parts)

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
                chosen.parts[part].objects[SELECTION] if chosen else None,
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


def _look(store: ObjectStore, run: list[Shard], quota: rule.Quotas, band: rule.Bands, asked: rule.Terms) -> rule.Seen:
    def looks() -> Iterator[rule.Seen]:
        for shard in run:
            ids, labels, confidence = _arrays(_labelled(store, shard.labels), *COLUMNS)
            yield rule.look(ids, labels, confidence, quota, band, asked)

    return _merged(looks(), quota)


def _choose(store: ObjectStore, run: list[Shard], ends: rule.Plan, seed: int, prefix: str, epoch: int) -> np.ndarray:
    """Write the selections of a run of shards. Returns per class the images and, with copies, int64 (2, classes)."""
    classes = len(ends.cut)
    used = np.zeros((2, classes), np.int64)
    with _Writer(Stage(store, prefix, fence(store, epoch))) as writer:
        for shard in run:
            whole = shard.labels.read(store)
            table = _with_label(schema.from_parquet(whole, shard.labels.key, (*COLUMNS, *schema.SOFT), lists=False))
            ids, labels, confidence = _arrays(table, *COLUMNS)
            if shard.chosen:
                earlier = schema.from_parquet(shard.chosen.read(store), shard.chosen.key, ("image_id", "copies"))
                rows, copies = rule.carry(ids, *_arrays(earlier, "image_id", "copies"))
            else:
                rows, copies = rule.choose(ids, labels, confidence, ends, seed)
            index = labels[rows].astype(np.int64)
            used += np.bincount(index, minlength=classes)
            used[1] += np.bincount(index, copies - 1, minlength=classes).astype(np.int64)
            chosen = table.take(pa.array(rows)).append_column("copies", pa.array(copies))
            # Whoever is selected has a label; to write that down row by row would take a fifth longer.
            whole_rows = pa.schema([field.with_nullable(False) for field in chosen.schema])
            writer.publish(shard.part, pa.Table.from_arrays(chosen.columns, schema=whole_rows))
    return used


def _churn(store: ObjectStore, run: list[Shard], classes: int) -> np.ndarray:
    found = np.zeros((3, classes), np.int64)
    for shard in run:
        assert shard.before is not None
        ids, labels = _arrays(_labelled(store, shard.labels), "image_id", "label")
        earlier = _arrays(_labelled(store, shard.before), "image_id", "label")
        found += rule.churn(ids, labels, earlier[0], earlier[1], classes)
    return found


class _Writer:
    """Publishes finished shards in threads, so that computing does not wait for the disk; a few at a time."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._threads = ThreadPoolExecutor(WRITERS)
        self._waiting: deque[Future[Any]] = deque()

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            for future in self._waiting:
                future.result()
        self._threads.shutdown(cancel_futures=True)

    def publish(self, part: int, table: pa.Table) -> None:
        data = schema.to_parquet(table, {"selection": self._stage.prefix})
        facts = {"images": table.num_rows, "copies": pa.compute.sum(table["copies"]).as_py() or 0}
        self._waiting.append(self._threads.submit(self._stage.publish, part, {SELECTION: data}, facts))
        if len(self._waiting) > 2 * WRITERS:
            self._waiting.popleft().result()


def _seen(shards: _Shards, quota: rule.Quotas, asked: rule.Terms) -> tuple[rule.Quotas, rule.Seen]:
    """Everything that decides where the classes end, and the quotas with what of it is still to be taken.

    Shards are read once more where too many rows are equally confident, and in the rare case of a missed draw.
    """
    found = list(chain.from_iterable(shards.each(_ties, quota))) if rule.crowded(quota).any() else []

    def looked(wide: np.ndarray | None = None) -> tuple[rule.Quotas, rule.Seen]:
        near, band = rule.narrowed(quota, rule.bands(quota, wide), found) if found else (quota, rule.bands(quota, wide))
        return near, _merged(shards.each(_look, near, band, asked), near)

    near, seen = looked()
    missed = rule.missed(quota, seen)
    return looked(missed) if missed.any() else (near, seen)


def _merged(parts: Iterator[rule.Seen], quota: rule.Quotas) -> rule.Seen:
    """``parts`` as one, a few at a time, so that what is not needed goes early."""
    seen = rule.merged(list(islice(parts, MERGED)), quota)
    while more := list(islice(parts, MERGED)):
        seen = rule.merged([seen, *more], quota)
    return seen


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
    quota: rule.Quotas, ends: rule.Plan, used: np.ndarray, asked: rule.Terms, labels: Commit, carried: bool
) -> dict[str, Any]:
    """The selection in figures, lists of one value per class. Raises where they do not add up."""
    kept, copies = used
    exact = asked.rule == "paper" and not carried
    if exact and not (np.array_equal(kept, quota.kept) and np.array_equal(copies, quota.totals)):
        raise IntegrityError(f"{labels.stage}: its label shards changed while they were read; run the command again.")
    cut = np.where(quota.kept > 0, ends.cut, np.nan)
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
            "cut": _numbers(cut),
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
