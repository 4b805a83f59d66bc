"""How many labels of each class lie in each confidence bin: a small stage beside a label stage.

The counts serve the rule ``paper`` with any thresholds on the grid of 0.01, so a selection by other settings need not
count again. The labelling counts on its way; where it was interrupted, or the labels are older, the first selection
counts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ray_ns.artifacts.labels import Labels
from ray_ns.engine.stages.stage import Done, Stage
from ray_ns.labels import files, schema
from ray_ns.labels.arrow import as_numpy
from ray_ns.labels.selection.bins import BINS
from ray_ns.store.commit import Commit, Output

if TYPE_CHECKING:
    from ray_ns.engine.run import Run

COUNTS = "counts.parquet"


@dataclass(frozen=True)
class Counts(Stage[np.ndarray]):
    """The committed counts of ``labels``, int64 (classes, bins); ``count`` makes them where there are none yet."""

    labels: Labels
    classes: int
    count: Callable[[], np.ndarray]

    name = "label/counts"

    @property
    def place(self) -> str:
        """Its folder in the run: in that of the labels."""
        return f"{self.labels.place}/counts"

    def inputs(self, run: "Run") -> dict[str, Any]:
        return {"labels": self.labels.digest, "bins": BINS["paper"]}

    def work(self, run: "Run", output: Output) -> Done:
        counts = self.count()
        cells = counts.nonzero()
        columns = {"label": cells[0].astype(np.int16), "bin": cells[1].astype(np.int16), "count": counts[cells]}
        table = pa.table(columns)
        about = run.about()
        output.publish(0, {COUNTS: files.to_parquet(table, about, {}) if about else schema.to_parquet(table, {})}, {})
        return Done({}, 1)

    def artifact(self, run: "Run", commit: Commit) -> np.ndarray:
        stored = commit.parts[0].objects[COUNTS]
        table = schema.from_parquet(stored.read(run.store), stored.key)
        counts = np.zeros((self.classes, BINS["paper"]), np.int64)
        counts[as_numpy(table["label"]), as_numpy(table["bin"])] = as_numpy(table["count"])
        return counts
