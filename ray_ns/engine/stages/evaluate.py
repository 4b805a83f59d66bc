"""Evaluate a network on the validation and test images, by the very way that labels a pool."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from ray_ns.config import results_of
from ray_ns.engine.predict import Job, Piece, predict
from ray_ns.engine.run import Run
from ray_ns.engine.stages.label import check_quarantine
from ray_ns.evaluate.metrics import metrics
from ray_ns.images import decode
from ray_ns.seals import canonical, digest
from ray_ns.store.commit import Commit, Output

CORPORA = ("validation", "test")


def evaluate(run: Run, prefix: str, network: Commit) -> Commit:
    """The committed figures of ``network``: its summary holds ``metrics`` of validation and test images."""
    config = run.config
    inputs = {
        "network": network.digest,
        "corpora": digest([[vars(shard) for shard in run.corpora[name].shards] for name in CORPORA]),
        "label": results_of(config.label),
        "data": results_of(config.data),
        "decode": decode.VERSION,
    }

    def work(stage: Output) -> tuple[dict[str, Any], int]:
        jobs = [Job(name, tuple(map(Piece, run.corpora[name].shards))) for name in CORPORA]
        run.reporter.begin(prefix, len(jobs), "corpora")
        found = {}
        for job, table in predict(run, network, jobs):
            found[job.corpus] = table
            run.reporter.progress(len(found))
        summary = {}
        for name, table in found.items():
            truth = np.concatenate(run.corpora[name].labels(config.data.classes))
            predicted = table["label"].fill_null(-1).to_numpy()
            confidence = table["confidence"].fill_null(0).to_numpy()
            reasons = Counter(table["quarantine"].drop_null().to_pylist())
            check_quarantine(config, name, len(truth), reasons)
            summary[name] = metrics(predicted, confidence, truth, config.data.classes)
        stage.publish(0, {"metrics.json": canonical(summary)}, {})
        scores = (f"{summary[name]['top1']:.1%} on {name}{_wrong(summary[name])}" for name in CORPORA)
        run.reporter.end(f"top-1 {', '.join(scores)}")
        return summary, 1

    return run.ensure(prefix, inputs, work)


def _wrong(found: Mapping[str, Any]) -> str:
    return f" ({found['unreadable']} unreadable ones count as wrong)" if found["unreadable"] else ""
