"""How a network scored on the validation and test images."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ray_ns.artifacts.artifact import Artifact
from ray_ns.labels import schema
from ray_ns.store.objects import ObjectStore

METRICS = "metrics.json"
PREDICTIONS = {"validation": "validation.parquet", "test": "test.parquet"}  # the file of each corpus
COLUMNS = ("image_id", "truth", "label", "confidence")
LOSS = "loss"  # from format 4 on


@dataclass(frozen=True)
class Scores(Artifact):
    """What ``evaluate`` commits in the run in ``store``."""

    store: ObjectStore

    def top1(self, corpus: str) -> float | None:
        """Share of right answers, 0..1, on ``validation`` or ``test``; None where there are no such images."""
        found = self.commit.summary[corpus]["top1"]
        return None if found is None else float(found)

    def top5(self, corpus: str) -> float | None:
        """Share of images, 0..1, whose true class is among the five most probable ones.

        None with five classes or fewer, without images, and in runs up to format 3.
        """
        found = self.commit.summary[corpus].get("top5")
        return None if found is None else float(found)

    def images(self, corpus: str) -> int:
        """How many images of ``corpus`` it was scored on."""
        return int(self.commit.summary[corpus]["images"])

    def predictions(self, corpus: str) -> pa.Table | None:
        """What was predicted for each image of ``corpus``, in its order; None where there are no images.

        None of a run of format 1 or 2 too, which kept none. Columns: ``image_id`` int64, ``truth`` int16, ``label``
        int16 and ``confidence`` float32, both null where the image cannot be read; from format 4 on ``loss`` float32.
        """
        stored = self.commit.parts[0].objects.get(PREDICTIONS[corpus])
        return stored and schema.from_parquet(stored.read(self.store), stored.key, (*COLUMNS, LOSS))  # those there are

    def answers(self, corpus: str) -> tuple[np.ndarray, np.ndarray | None] | None:
        """The same as ``evaluate.promotion.Answers``."""
        found = self.predictions(corpus)
        if found is None:
            return None
        return right(found), found[LOSS].to_numpy() if LOSS in found.column_names else None  # null becomes NaN


def right(predictions: pa.Table) -> np.ndarray:
    """Which images were predicted right, bool (n,). One that cannot be read counts as wrong."""
    found: np.ndarray = predictions["truth"].to_numpy() == predictions["label"].fill_null(-1).to_numpy()
    return found
