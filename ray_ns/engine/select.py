"""Filter and balance the committed labels of a pool: the passes of ``labels.select`` as Ray tasks over label shards."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from ray_ns.config import Select, results_of
from ray_ns.engine.label import LABELS
from ray_ns.engine.session import Session
from ray_ns.errors import InputError
from ray_ns.labels import schema
from ray_ns.labels import select as rule
from ray_ns.store.commit import Commit, Part, Stage
from ray_ns.store.objects import open_store

SELECTION = "selection.parquet"


def select(session: Session, prefix: str, labels: Commit) -> Commit:
    """The committed selection from ``labels``: one part per label shard, and the counts of every class."""
    config = session.config
    inputs = {"labels": labels.digest, "select": results_of(config.select), "seed": config.run.seed}

    def work(stage: Stage) -> tuple[dict[str, Any], int]:
        session.reporter.begin(prefix, 3 * len(labels.parts), "label shards read")
        passes = _Passes(session, labels)
        counts = passes.run(_count, config.data.classes, config.select.threshold, config.run.seed)
        quota = rule.quotas(sum(counts[1:], counts[0]), config.select.per_class, config.select.balance)
        if not quota.kept.any():
            raise InputError(
                f"select.threshold = {config.select.threshold:g}: no image of the pool has a label so confident. "
                f"Lower it, or train the teacher longer."
            )
        edges = passes.run(_on_edge, quota, config.select.threshold, config.run.seed)
        ids, classes, confidence = (np.concatenate([edge[i] for edge, _ in edges]) for i in range(3))
        drawn_ids, drawn_labels = (np.concatenate([drawn[i] for _, drawn in edges]) for i in range(2))
        cut = rule.cuts(quota, (ids, classes, confidence), (drawn_ids, drawn_labels), config.run.seed)
        published = passes.run(_choose, quota, cut, config.select, config.run.seed, stage.prefix)
        for part, (data, facts) in enumerate(published):
            stage.publish(part, {SELECTION: data}, facts)
        summary = _summary(quota, config.select)
        session.reporter.end(f"{summary['images']:,} images kept, {summary['copies']:,} with copies")
        return summary, len(labels.parts)

    return session.ensure(prefix, inputs, work)


class _Passes:
    """Runs one function over every label shard, as Ray tasks; results come in the order of the shards."""

    def __init__(self, session: Session, labels: Commit) -> None:
        session.ray()
        self._session, self._labels, self._passed = session, labels, 0

    def run(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        import ray

        task = ray.remote(_on_shard)
        shared = [ray.put(arg) for arg in args]
        waiting = [task.remote(function, self._session.store.url, part, *shared) for part in self._labels.parts]
        for done in range(len(waiting)):
            ray.wait(waiting, num_returns=done + 1)
            self._passed += 1
            self._session.reporter.progress(self._passed)
        return ray.get(waiting)


def _on_shard(function: Callable[..., Any], store_url: str, part: Part, *args: Any) -> Any:
    stored = part.objects[LABELS]
    table = schema.from_parquet(stored.read(open_store(store_url)), stored.key)
    return function(table.filter(pa.compute.is_valid(table["label"])), *args)


def _columns(table: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return tuple(table[name].to_numpy() for name in ("image_id", "label", "confidence"))  # type: ignore[return-value]


def _count(table: pa.Table, classes: int, threshold: float, seed: int) -> rule.Counts:
    return rule.count(*_columns(table), classes, threshold, seed)


def _on_edge(table: pa.Table, quota: rule.Quotas, threshold: float, seed: int) -> tuple[Any, Any]:
    ids, labels, confidence = _columns(table)
    edge, drawn = rule.on_edge(ids, labels, confidence, quota, threshold, seed)
    return (ids[edge], labels[edge], confidence[edge]), (ids[drawn], labels[drawn])


def _choose(
    table: pa.Table, quota: rule.Quotas, cut: rule.Cuts, settings: Select, seed: int, prefix: str
) -> tuple[bytes, dict[str, Any]]:
    copies = rule.choose(*_columns(table), quota, cut, settings.threshold, seed)
    chosen = table.append_column("copies", pa.array(copies)).filter(pa.array(copies > 0)).drop_columns(["quarantine"])
    facts = {"images": chosen.num_rows, "copies": int(copies.sum())}
    return schema.to_parquet(chosen, {"selection": prefix}), facts


def _summary(quota: rule.Quotas, settings: Select) -> dict[str, Any]:
    return {
        "images": int(quota.kept.sum()),
        "copies": int(quota.totals.sum()),
        "threshold": settings.threshold,
        "per_class": {
            "candidates": quota.candidates.tolist(),
            "over_threshold": quota.over.tolist(),
            "kept": quota.kept.tolist(),
            "with_copies": quota.totals.tolist(),
        },
    }
