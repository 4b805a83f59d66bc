"""Evaluate a network on the validation and test images, by the very way that labels a pool."""

from typing import Any

import numpy as np

from ray_ns.config import results_of
from ray_ns.engine.label import check_quarantine, predict
from ray_ns.engine.session import Session
from ray_ns.evaluate.metrics import metrics
from ray_ns.images import decode
from ray_ns.store.commit import Commit, Stage
from ray_ns.store.manifest import canonical, digest

CORPORA = ("validation", "test")


def evaluate(session: Session, prefix: str, network: Commit) -> Commit:
    """The committed figures of ``network``: its summary holds ``metrics`` of validation and test images."""
    config = session.config
    inputs = {
        "network": network.digest,
        "corpora": digest([[vars(shard) for shard in session.corpora[name].shards] for name in CORPORA]),
        "label": results_of(config.label),
        "data": results_of(config.data),
        "decode": decode.VERSION,
    }

    def work(stage: Stage) -> tuple[dict[str, Any], int]:
        shards = [(name, shard) for name in CORPORA for shard in session.corpora[name].shards]
        session.reporter.begin(prefix, len(shards), "shards")
        found = {}
        for labels in predict(session, network, shards):
            found[labels.corpus, labels.shard] = labels.table
            session.reporter.progress(len(found))
        summary = {}
        for name in CORPORA:
            tables = [found[name, shard] for shard in session.corpora[name].shards]
            truth = np.concatenate(session.corpora[name].labels(config.data.classes))
            predicted = np.concatenate([table["label"].fill_null(-1).to_numpy() for table in tables])
            confidence = np.concatenate([table["confidence"].fill_null(0).to_numpy() for table in tables])
            check_quarantine(config, name, len(truth), {"unreadable": int((predicted < 0).sum())})
            summary[name] = metrics(predicted, confidence, truth, config.data.classes)
        stage.publish(0, {"metrics.json": canonical(summary)}, {})
        session.reporter.end(
            f"top-1 {summary['validation']['top1']:.1%} on validation, {summary['test']['top1']:.1%} on test"
        )
        return summary, 1

    return session.ensure(prefix, inputs, work)
