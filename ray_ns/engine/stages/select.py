"""Filter the labels of a pool by confidence and balance them by class, over label shards that no machine can hold.

Each task takes some label shards and writes the part of the selection that is certain from those shards alone. It sets
the few undecided labels aside in the store. The driver decides all of those together and writes them as the last part;
``artifacts.selection`` joins both. The histogram that the thresholds and quotas are computed from is a stage of its own
(``counts``), made while the pool is labelled.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from operator import gt
from typing import Any

import numpy as np
import pyarrow as pa

from ray_ns import measures
from ray_ns.artifacts.labels import Labels
from ray_ns.artifacts.selection import Selection
from ray_ns.config import Config
from ray_ns.engine.bench import Bench, Finding
from ray_ns.engine.run import Run
from ray_ns.engine.stages.counts import Counts
from ray_ns.engine.stages.stage import Done, Stage
from ray_ns.engine.workers import selecting as tasks
from ray_ns.errors import InputError, IntegrityError
from ray_ns.labels.selection import bins, passes, rules, terms, ties
from ray_ns.seals import digest
from ray_ns.store import layout
from ray_ns.store.commit import Commit, Output, find_commit

SHARDS_PER_TASK = (16, 256)  # at least, so that few histograms travel; at most, so that a lost task costs little
TASKS_PER_CPU = 32  # many, so that all CPUs end at about the same time


@dataclass(frozen=True)
class Select(Stage[Selection]):
    """The committed selection from ``labels``: a part per label shard, and one of what only all could decide.

    In its summary are the counts per class. ``before``: earlier labels of the same pool, for how they changed.
    ``chosen``: the selection to which these labels were restricted; its images and copies stay as they are, with the
    new labels.
    """

    labels: Labels
    before: Labels | None = None
    chosen: Selection | None = None

    name = "select"

    def inputs(self, run: Run) -> dict[str, Any]:
        return {
            "labels": self.labels.digest,
            "before": self.before.digest if self.before else None,
            "chosen": self.chosen.digest if self.chosen else None,
            "select": run.settings.of(run.config.select),
            "rule": rules.VERSION,
            "seed": run.config.run.seed,
        }

    def work(self, run: Run, output: Output) -> Done:
        labels, asked = self.labels, self._terms(run)
        run.reporter.begin(output.prefix, (2 + bool(self.before)) * len(labels.parts), "label shards read")
        shards = _Shards(run, labels, self.before, self.chosen)
        counted = _counted(run, labels, shards, asked)
        quota = rules.quotas(counted, asked)
        _check(quota, asked, labels)
        near, ends = quota, passes.bounds(quota, asked)
        if asked.rule == "paper" and ties.has_crowded_tie(quota).any():
            near, ends = ties.within_one_shard(
                quota, ends, list(chain.from_iterable(shards.each(tasks.count_ties, quota, asked)))
            )
        shards.passed = len(labels.parts)
        found = tasks.together(shards.each(tasks.choose, ends, near, asked, output.prefix, run.lease.held()))
        churned = sum(shards.each(tasks.churn, asked.classes)) if self.before else None
        shards.dismiss()
        table, reaches = _settled(run, found, near, asked)
        classes, copies = tasks.arrays(table, "label", "copies")
        last = tasks.used_of(classes, copies, asked.classes)
        number = len(labels.parts)
        parts = {**found.parts, number: output.put(number, *tasks.encoded_last(output, table, last, number))}
        summary = _summary(quota, reaches, found.used + last, asked, labels, bool(self.chosen))
        if churned is not None:
            summary["churn"] = _churn_summary(churned)
        told = f"{summary['images']:,} images kept, {summary['copies']:,} with copies"
        return Done(summary, [parts[part] for part in sorted(parts)], told)

    def artifact(self, run: Run, commit: Commit) -> Selection:
        """The selection. What was set aside while it was decided goes: a kill may have come between."""
        for key in filter(tasks.is_aside, run.store.list(tasks.place_aside(commit.stage))):
            run.lease.check()
            run.store.delete(key)
        measures.level("ns_kept_images", commit.summary["images"])
        return Selection(commit)

    @classmethod
    def in_round(cls, config: Config) -> bool:
        return config.uses_pool

    @classmethod
    def probe(cls, bench: Bench, turn: int) -> Iterator[Finding]:
        """The slice's own selection: K is what the slice gives, since none holds the run's."""
        if turn == 0:
            return
        config, table = bench.config, bench.labels.filter(pa.compute.is_valid(bench.labels["label"]))
        ids, of_class, confidence = (table[name].to_numpy() for name in ("image_id", "label", "confidence"))
        settings = config.select.model_copy(update={"per_class": "auto", "quotas": {}})
        asked = terms.of_settings(settings, config.data.classes, config.run.seed)
        tally = passes.Tally(asked)
        tally.add(of_class, confidence)
        quota = rules.quotas(tally.counts(), asked)
        rows, copies = passes.of_one_shard(ids, of_class, confidence, quota, asked)
        over = int(quota.over.sum())
        figures = {"labels": table.num_rows, "over_threshold": over, "kept": len(rows), "copies": int(copies.sum())}
        line = (
            f"of {table.num_rows} labels {over} reach the threshold, {len(rows)} are kept; the teacher is two steps old"
        )
        if not len(rows):
            rows, copies = np.arange(table.num_rows), np.ones(table.num_rows, np.int64)
            line += ", so the student takes its step on all"
        from ray_ns.train.selected import Selected

        bench.chosen = Selected([table.take(pa.array(rows)).append_column("copies", pa.array(copies))])
        yield Finding(cls.name, line, figures)

    def _terms(self, run: Run) -> terms.Terms:
        """What is asked for: the settings', or everything where an earlier selection decides."""
        config = run.config
        if self.chosen:
            return terms.all_labels(config.data.classes, config.run.seed)
        return terms.of_settings(config.select, config.data.classes, config.run.seed)


def select_again(run: Run, number: int | None) -> Selection:
    """The selection from a round's committed labels by other settings than the run's; it lies beside the run's own.

    ``number``: the round; None: the last one whose whole pool is labelled. No image is read and no teacher asked.
    """
    store, settings = run.store, run.settings.of(run.config.select)
    last = 1 if run.config.run.mode == "filter_once" else run.config.run.rounds
    if number is not None and not 1 <= number <= last:
        raise InputError(f"round {number}: the pool is labelled in rounds 1 to {last} of this run, at most.")
    rounds = f"{run.place}rounds"
    found = {at: find_commit(store, f"{rounds}/{at}/label") for at in range(1, last + 1)}
    number = number or max((at for at, labels in found.items() if labels), default=1)
    earlier = [at for at in found if at < number and found[at] is not None]  # some rounds take those of the one before
    labels, before = found[number], found[max(earlier)] if earlier else None
    if labels is None:
        raise InputError(f"{store.url}: round {number} has no labels yet. Let 'ray-ns run --until label' make them.")
    own = not run.settings.differences((layout.settings(store) or {}).get("select", {}), run.config.select)
    place = f"{rounds}/{number}/{Select.name}" + ("" if own else f"-{digest(settings)[:12]}")
    return run.ensure(place, Select(Labels(labels), Labels(before) if before else None))


class _Shards:
    """The shards of a label commit, cut into runs for the cluster's CPUs; ``each`` makes one pass over them."""

    def __init__(self, run: Run, labels: Labels, before: Labels | None, chosen: Selection | None) -> None:
        shards = [
            tasks.Shard(
                part,
                it,
                before.parts[part] if before else None,
                chosen.of_shards[part] if chosen else None,
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


def _counted(run: Run, labels: Labels, shards: _Shards, asked: terms.Terms) -> np.ndarray:
    """Labels by class and bin, int64 (classes, bins): those that are kept beside the labels, where they serve."""
    if asked.counted_before:
        counts = Counts(labels, asked.classes, lambda: _count(shards, asked))
        return run.ensure(counts.place, counts)
    return _count(shards, asked)


def _count(shards: _Shards, asked: terms.Terms) -> np.ndarray:
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


def _check(quota: rules.Quotas, asked: terms.Terms, labels: Labels) -> None:
    """Raise where the labels read are not those that were committed, or nothing can be selected from them."""
    found = quota.candidates.tolist()
    if found != labels.per_class if asked.share == 1 else any(map(gt, found, labels.per_class)):
        raise IntegrityError(
            f"{labels.place}: the label shards hold {int(quota.candidates.sum())} labels, not those per class that its "
            f"commit names. Restore them from a backup, or delete its folder and run again to label anew."
        )
    if not quota.kept.any():
        of_share = "" if asked.share == 1 else f" in select.pool_share = {asked.share:g} of it"
        raise InputError(
            f"select.threshold = {float(asked.threshold.min()):g}: no image of the pool has a label so confident (of "
            f"{int(quota.candidates.sum())}{of_share}), or every quota is 0. Lower it, or train the teacher longer."
        )


def _summary(
    quota: rules.Quotas, reaches: np.ndarray, used: np.ndarray, asked: terms.Terms, labels: Labels, carried: bool
) -> dict[str, Any]:
    """The selection in figures, lists of one value per class. Raises where they do not add up."""
    kept, copies = used
    exact = asked.rule == "paper" and not carried
    if exact and not (np.array_equal(kept, quota.kept) and np.array_equal(copies, quota.totals)):
        raise IntegrityError(
            f"{labels.place}: its labels are not those that were counted. Delete {labels.place}/counts and run the "
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
        "quarantine": labels.quarantine,
        "left_out": labels.left_out,
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
