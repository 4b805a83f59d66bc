"""Filter and balance the committed labels of a pool: the passes of ``labels.selection`` as Ray tasks.

A task takes a run of shards and writes what they surely give, a part of the selection for each; what it cannot decide
alone, some thousandths of the labels, it sets aside in the store until the driver decides about all of it and writes it
as one part more (``engine.selected`` puts both together). What is counted serves every threshold on the grid of 0.01,
so it is a stage of its own beside the labels, ``counts``, that the labelling itself has made where it was not
interrupted.
"""

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from ray_ns.artifacts.labels import SELECTION
from ray_ns.config import results_of
from ray_ns.engine.run import Run
from ray_ns.engine.stages import counts
from ray_ns.engine.workers import selecting as tasks
from ray_ns.errors import InputError, IntegrityError
from ray_ns.labels.selection import bins, passes, rules, terms, ties
from ray_ns.seals import digest
from ray_ns.store import layout
from ray_ns.store.commit import Commit, Output, Part, find_commit

SHARDS_PER_TASK = (16, 256)  # at least, so that few histograms travel; at most, so that a lost task costs little
TASKS_PER_CPU = 32  # many, so that all CPUs end at about the same time


def select(run: Run, prefix: str, labels: Commit, before: Commit | None = None, chosen: Commit | None = None) -> Commit:
    """The committed selection from ``labels``: a part per label shard, and one of what only all could decide.

    In its summary are the counts per class.

    ``before``: earlier labels of the same pool, for how they changed. ``chosen``: the selection to which these labels
    were restricted; its images and copies stay as they are, with the new labels.
    """
    config = run.config
    inputs = {
        "labels": labels.digest,
        "before": before.digest if before else None,
        "chosen": chosen.digest if chosen else None,
        "select": results_of(config.select),
        "rule": rules.VERSION,
        "seed": config.run.seed,
    }
    asked = terms.of_settings(config.select, config.data.classes, config.run.seed)
    if chosen:
        asked = terms.all_labels(config.data.classes, config.run.seed)

    def work(stage: Output) -> tuple[dict[str, Any], list[Part]]:
        run.reporter.begin(prefix, (2 + bool(before)) * len(labels.parts), "label shards read")
        shards = _Shards(run, labels, before, chosen)
        if asked.on_grid:
            counted = counts.keep(run, labels, asked.classes, lambda: _counted(shards, asked))
        else:
            counted = _counted(shards, asked)
        quota = rules.quotas(counted, asked)
        _check(quota, asked, labels)
        near, ends = quota, passes.bounds(quota, asked)
        if asked.rule == "paper" and ties.has_crowded_tie(quota).any():
            near, ends = ties.within_one_shard(
                quota, ends, list(chain.from_iterable(shards.each(tasks.count_ties, quota)))
            )
        shards.passed = len(labels.parts)
        found = tasks.together(shards.each(tasks.choose, ends, near, asked.seed, prefix, run.lease.held()))
        churned = sum(shards.each(tasks.churn, asked.classes)) if before else None
        shards.dismiss()
        table, reaches = _settled(run, found, near, asked)
        classes, copies = tasks.arrays(table, "label", "copies")
        last = tasks.used_of(classes, copies, asked.classes)
        number = len(labels.parts)
        parts = {**found.parts, number: stage.put(number, *tasks.encoded(stage, table, last))}
        used = found.used + last
        summary = _summary(quota, reaches, used, asked, labels, bool(chosen))
        if churned is not None:
            summary["churn"] = _churn_summary(churned)
        run.reporter.end(f"{summary['images']:,} images kept, {summary['copies']:,} with copies")
        return summary, [parts[part] for part in sorted(parts)]

    made = run.ensure(prefix, inputs, work)
    for key in filter(tasks.is_aside, run.store.list(tasks.place_aside(prefix))):
        run.lease.check()
        run.store.delete(key)
    return made


def select_again(run: Run, number: int | None) -> Commit:
    """The selection from a round's committed labels by other settings than the run's; it lies beside the run's own.

    ``number``: the round; None: the last one whose whole pool is labelled. No image is read and no teacher asked.
    """
    store, settings = run.store, results_of(run.config.select)
    last = 1 if run.config.run.mode == "filter_once" else run.config.run.rounds
    if number is not None and not 1 <= number <= last:
        raise InputError(f"round {number}: the pool is labelled in rounds 1 to {last} of this run, at most.")
    rounds = f"{run.place}rounds"
    found = {at: find_commit(store, f"{rounds}/{at}/label") for at in range(1, last + 1)}
    number = number or max((at for at, labels in found.items() if labels), default=1)
    labels = found[number]
    if labels is None:
        raise InputError(f"{store.url}: round {number} has no labels yet. Let 'ray-ns run --until label' make them.")
    own = (layout.read(store, layout.RUN) or {})["config"]["select"] == settings
    place = f"{rounds}/{number}/select" + ("" if own else f"-{digest(settings)[:12]}")
    return select(run, place, labels, found.get(number - 1))


class _Shards:
    """The shards of a label commit, cut into runs for the cluster's CPUs; ``each`` makes one pass over them."""

    def __init__(self, run: Run, labels: Commit, before: Commit | None, chosen: Commit | None) -> None:
        shards = [
            tasks.Shard(
                part,
                it,
                before.parts[part] if before else None,
                (chosen.parts[part].objects[SELECTION], chosen.parts[-1].objects[SELECTION]) if chosen else None,
            )
            for part, it in enumerate(labels.parts)
        ]
        least, most = SHARDS_PER_TASK
        self._run, self._fan_out, self.passed = run, run.fan_out(run), 0
        size = min(max(-(-len(shards) // (TASKS_PER_CPU * self._fan_out.cpus)), least), most)
        self._runs = [shards[at : at + size] for at in range(0, len(shards), size)]
        self._fan_out.start(tasks.ready, len(self._runs))  # so that workers start while the counts are read

    def each(self, task: Callable[..., Any], *args: Any) -> Iterator[Any]:
        """The results of ``task(run of shards, store, *args)`` for every run, in whatever order they come."""
        for number, result in self._fan_out.map(task, self._runs, self._run.store, *args):
            self.passed += len(self._runs[number])
            self._run.reporter.progress(self.passed)
            yield result

    def dismiss(self) -> None:
        """End the workers, so that what they hold and what the driver takes for the rest are not held at once."""
        self._fan_out.dismiss()


def _counted(shards: _Shards, asked: terms.Terms) -> np.ndarray:
    return sum(shards.each(tasks.count, asked), np.zeros((asked.classes, bins.BINS[asked.rule]), np.int64))


def _settled(run: Run, found: tasks.Found, quota: rules.Quotas, asked: terms.Terms) -> tuple[pa.Table, np.ndarray]:
    """The undecided rows that are selected, in the order of label shards, and how far each class goes."""
    aside = sorted(found.undecided, key=lambda it: it.key)
    undecided = tasks.gathered(tasks.numbered(run.store, aside), quota)
    ids, labels, confidence, rows = tasks.arrays(undecided, *tasks.COLUMNS, "row")
    del undecided
    copies, reaches = passes.settle(ids, labels, confidence, found.below, quota, asked)
    used = copies > 0
    return tasks.picked(run.store, aside, rows[used], copies[used]), reaches


def _check(quota: rules.Quotas, asked: terms.Terms, labels: Commit) -> None:
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
    quota: rules.Quotas, reaches: np.ndarray, used: np.ndarray, asked: terms.Terms, labels: Commit, carried: bool
) -> dict[str, Any]:
    """The selection in figures, lists of one value per class. Raises where they do not add up."""
    kept, copies = used
    exact = asked.rule == "paper" and not carried
    if exact and not (np.array_equal(kept, quota.kept) and np.array_equal(copies, quota.totals)):
        raise IntegrityError(
            f"{labels.stage}: its labels are not those that were counted. Delete {labels.stage}/counts and run the "
            f"command again."
        )
    return {
        "rule": "carried over" if carried else asked.rule,
        "images": int(kept.sum()),
        "copies": int(copies.sum()),
        "dropped": {
            "below_threshold": int((quota.candidates - quota.over).sum()),
            "beyond_quota": int((quota.over - kept).sum()),
        },
        "quarantine": labels.summary["quarantine"],
        "left_out": labels.summary.get("left_out", {}),  # labels of an earlier version knew of none
        "per_class": {
            "candidates": quota.candidates.tolist(),
            "over_threshold": quota.over.tolist(),
            "kept": kept.tolist(),
            "with_copies": copies.tolist(),
            "threshold": _numbers(asked.threshold),
            "cut": _numbers(reaches),
            "confidence": {
                f"q{round(100 * share)}": _numbers(quota.quantiles[:, at]) for at, share in enumerate(rules.QUANTILES)
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
