"""Evaluate a network on the validation and test images, by the very way that labels a pool."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ray_ns import measures
from ray_ns.artifacts.network import Network
from ray_ns.artifacts.scores import METRICS, PREDICTIONS, Scores
from ray_ns.engine.bench import Bench, Finding
from ray_ns.engine.predict import predict
from ray_ns.engine.run import Run
from ray_ns.engine.stages.label import check_quarantine
from ray_ns.engine.stages.stage import Done, Stage
from ray_ns.engine.workers.slices import OWN, Job, Piece
from ray_ns.evaluate.figures import of_table
from ray_ns.evaluate.metrics import metrics, of_probabilities
from ray_ns.images import decode
from ray_ns.labels import files
from ray_ns.seals import canonical, digest
from ray_ns.store import layout
from ray_ns.store.commit import Commit, Output

CORPORA = ("validation", "test")
KEPT = ("image_id", "truth", "label", "confidence", "loss")
NOTHING = (np.zeros(0, int), np.zeros(0), np.zeros(0, int))  # predicted of no image


@dataclass(frozen=True)
class Evaluate(Stage[Scores]):
    """The committed figures of ``network``: ``evaluate.metrics`` of validation and test images.

    From FORMAT 3 on with what it predicted for each of them; from FORMAT 4 on with the loss of each, top-5 and NLL.
    Calibration error and top-1 per class are by the rule of ``ray-ns evaluate`` from FORMAT 5 on.
    """

    network: Network

    name = "evaluate"

    def inputs(self, run: Run) -> dict[str, Any]:
        return {
            "network": self.network.digest,
            "corpora": digest([[vars(shard) for shard in run.corpora[name].shards] for name in CORPORA]),
            "label": run.settings.of(run.config.label.of_one_network),
            "data": run.settings.of(run.config.data),
            "decode": decode.VERSION,
        }

    def work(self, run: Run, output: Output) -> Done:
        classes = run.config.data.classes
        early = run.format < layout.EXACT
        view = OWN if run.format >= layout.FAITHFUL else None
        shards = {name: run.corpora[name].shards for name in CORPORA}
        jobs = [Job(name, tuple(map(Piece, of)), view=view) for name, of in shards.items() if of]
        run.reporter.begin(output.prefix, len(jobs), "corpora")
        found = {}
        for job, table in predict(run, self.network, jobs):
            found[job.corpus] = table
            run.reporter.progress(len(found), images=sum(table.num_rows for table in found.values()))
        summary = {name: metrics(*NOTHING, classes, early) for name, of in shards.items() if not of}
        predictions: dict[str, bytes] = {}
        for name, table in found.items():
            truth = np.concatenate(run.corpora[name].labels(classes))
            predicted = table["label"].fill_null(-1).to_numpy()
            confidence = table["confidence"].fill_null(0).to_numpy()
            reasons = Counter(table["quarantine"].drop_null().to_pylist())
            check_quarantine(run.config, name, len(truth), reasons)
            summary[name] = metrics(predicted, confidence, truth, classes, early)
            if view is not None:
                judged = of_table(table)
                loss = np.where(judged.label < 0, np.nan, judged.loss)
                summary[name] |= of_probabilities(loss, judged.top, truth, classes)
            if about := run.about(name):
                predictions[PREDICTIONS[name]] = self._predictions(table, truth, about)
        output.publish(0, {METRICS: canonical(summary), **predictions}, {})
        return Done(summary, 1, f"top-1 {', '.join(_told(name, summary[name]) for name in CORPORA)}")

    def _predictions(self, table: pa.Table, truth: np.ndarray, about: files.About) -> bytes:
        """What was predicted for each image, as a file."""
        kept = table.select([name for name in KEPT if name in table.column_names])
        if "truth" not in kept.column_names:
            kept = kept.add_column(1, "truth", pa.array(truth.astype(np.int16)))
        return files.to_parquet(kept, about, {"network": self.network.digest, "decode": decode.VERSION})

    def artifact(self, run: Run, commit: Commit) -> Scores:
        found = Scores(commit, run.store)
        for name in CORPORA:
            top1 = found.top1(name)
            if top1 is not None:
                measures.level("ns_top1", top1, corpus=name)
        return found

    @classmethod
    def probe(cls, bench: Bench, turn: int) -> Iterator[Finding]:
        """The teacher, two steps old, on some validation images."""
        if turn > 0 or not bench.corpora["validation"].shards:
            return
        first = bench.first("validation", bench.config.label.slice_rows)
        probabilities, reasons = bench.labelled(first.encoded)
        classes = bench.config.data.classes
        truth = bench.corpora["validation"].labels(classes)[first.place][first.row : first.row + len(first.encoded)]
        predicted = np.where([reason is None for reason in reasons], probabilities.argmax(1), -1)
        top1 = metrics(predicted, probabilities.max(1), truth, classes)["top1"]
        line = f"top-1 {top1:.1%} on {len(first.encoded)} validation images; {1 / classes:.1%} is chance"
        yield Finding(cls.name, line, {"images": len(first.encoded), "top1": top1})


def _told(name: str, found: Mapping[str, Any]) -> str:
    if found["top1"] is None:
        return f"not measured on {name} (no images)"
    wrong = f" ({found['unreadable']} unreadable ones count as wrong)" if found["unreadable"] else ""
    return f"{found['top1']:.1%} on {name}{wrong}"
