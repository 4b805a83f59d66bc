"""The temperature of a teacher, found on the validation images: a small stage in the turn that trained it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ray_ns.artifacts.calibration import CALIBRATION, Calibration
from ray_ns.artifacts.network import Network
from ray_ns.config import Config
from ray_ns.corpora.corpus import count_per_class
from ray_ns.engine.predict import predict
from ray_ns.engine.run import Run
from ray_ns.engine.stages.evaluate import CORPORA, Evaluate
from ray_ns.engine.stages.stage import Done, Stage
from ray_ns.engine.workers.judging import TRUTH
from ray_ns.engine.workers.slices import LOGITS, Job, Piece
from ray_ns.errors import InputError
from ray_ns.evaluate.calibration import FEW, calibration, fit, in_words
from ray_ns.seals import canonical
from ray_ns.store.commit import Commit, Output


@dataclass(frozen=True)
class Calibrate(Stage[Calibration]):
    """The committed temperature of ``network``: that with the lowest NLL on the validation images.

    Its file says how well probabilities fit on validation images and, which chose nothing, on test images, at
    temperature 1 (``before``) and at this one (``after``).
    """

    network: Network

    name = "calibrate"

    @property
    def place(self) -> str:
        """Its folder in the run: in the turn of the network."""
        return f"{self.network.place.rpartition('/')[0]}/{self.name}"

    @classmethod
    def in_round(cls, config: Config) -> bool:
        """A round is not ended by it: it lies in the turn of the teacher, and goes before that one's labels."""
        return False

    def inputs(self, run: Run) -> dict[str, Any]:
        return Evaluate(self.network).inputs(run)  # the same images in the same way

    def work(self, run: Run, output: Output) -> Done:
        shards = {name: run.corpora[name].shards for name in CORPORA}
        jobs = [Job(name, tuple(map(Piece, of)), view=LOGITS) for name, of in shards.items() if of]
        run.reporter.begin(output.prefix, len(jobs), "corpora")
        found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for job, table in predict(run, self.network, jobs):
            found[job.corpus] = _readable(table)
            run.reporter.progress(len(found))
        best = fit(*found["validation"])
        if best.doubt:
            run.reporter.warn(f"label.temperature: auto: {best.doubt} ({output.prefix}, validation images)")
        figures = vars(best) | {
            name: {"before": calibration(*found[name], 1.0), "after": calibration(*found[name], best.temperature)}
            for name in CORPORA
            if name in found
        }
        output.publish(0, {CALIBRATION: canonical(figures)}, {})
        return Done({"temperature": best.temperature}, 1, in_words(figures))

    def artifact(self, run: Run, commit: Commit) -> Calibration:
        return Calibration(commit)


def check(run: Run) -> None:
    """Raise ``InputError`` where ``label.temperature: auto`` has too few validation images to find any."""
    if run.config.label.temperature != "auto":
        return
    classes = run.config.data.classes
    images = int(count_per_class(run.corpora["validation"].labels(classes), classes).sum())
    if images < FEW:
        raise InputError(
            f"label.temperature: auto: there are {images} validation images; a temperature is found on {FEW} or more. "
            f"Give more (data.validation), or a number; 1 leaves the teacher's confidences as they are."
        )


def _readable(table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """The logits, float32 (n, classes), and the true classes, int64 (n,), of the images that can be read."""
    table = table.filter(table["quarantine"].is_null())
    logits = table[LOGITS].combine_chunks()
    rows = logits.flatten().to_numpy().reshape(-1, logits.type.list_size)
    return rows, table[TRUTH].to_numpy().astype(np.int64)
