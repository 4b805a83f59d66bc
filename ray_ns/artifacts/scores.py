"""How a network scored on the validation and test images."""

import numpy as np
import pyarrow as pa

from ray_ns.artifacts.artifact import Artifact
from ray_ns.labels import schema
from ray_ns.store.objects import ObjectStore

METRICS = "metrics.json"
PREDICTIONS = {"validation": "validation.parquet", "test": "test.parquet"}  # the file of each corpus
COLUMNS = ("image_id", "truth", "label", "confidence")


class Scores(Artifact):
    """What ``evaluate`` commits."""

    def top1(self, corpus: str) -> float:
        """Share of right answers, 0..1, on ``validation`` or ``test``."""
        return float(self.commit.summary[corpus]["top1"])

    def images(self, corpus: str) -> int:
        """How many images of ``corpus`` it was scored on."""
        return int(self.commit.summary[corpus]["images"])

    def predictions(self, store: ObjectStore, corpus: str) -> pa.Table | None:
        """What was predicted for each image of ``corpus``, in its order; None: the run is of an earlier format.

        Columns: ``image_id`` int64, ``truth`` int16, ``label`` int16 and ``confidence`` float32, both null where the
        image cannot be read.
        """
        stored = self.commit.parts[0].objects.get(PREDICTIONS[corpus])
        return stored and schema.from_parquet(stored.read(store), stored.key, COLUMNS)


def right(predictions: pa.Table) -> np.ndarray:
    """Which images were predicted right, bool (n,). One that cannot be read counts as wrong."""
    found: np.ndarray = predictions["truth"].to_numpy() == predictions["label"].fill_null(-1).to_numpy()
    return found
