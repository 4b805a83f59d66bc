"""How many labels of each class lie in each confidence bin: a small stage beside a label stage, ``counts``.

The counts serve the rule ``paper`` with any thresholds on the grid of 0.01, so a selection that is asked again with
other settings need not count again. The labelling makes them on its way; where it was interrupted, or the labels are
older, the first selection does.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ray_ns.errors import InputError
from ray_ns.labels import schema
from ray_ns.labels.arrow import as_numpy
from ray_ns.labels.selection import bins, passes, terms
from ray_ns.store.commit import Commit, Output

if TYPE_CHECKING:
    from ray_ns.engine.run import Run

COUNTS = "counts.parquet"


def tally(classes: int) -> passes.Tally:
    """A tally whose counts can be kept."""
    return passes.Tally(terms.all_labels(classes, 0))


def add(counted: passes.Tally, table: pa.Table, key: str) -> None:
    """Count a label table's labelled rows. ``InputError`` naming ``key`` where a confidence is NaN or outside 0..1."""
    labels, confidence = (as_numpy(table[name].drop_null()) for name in ("label", "confidence"))
    try:
        counted.add(labels, confidence)
    except ValueError as error:
        raise InputError(
            f"{key}: {error}. The teacher's network is of no use: train it anew, with a lower learning rate where it "
            f"has diverged."
        ) from error


def publish(stage: Output, counts: np.ndarray) -> None:
    """Store ``counts``, int64 (classes, bins), as the one part of a stage: its cells that are not 0."""
    cells = counts.nonzero()
    columns = {"label": cells[0].astype(np.int16), "bin": cells[1].astype(np.int16), "count": counts[cells]}
    stage.publish(0, {COUNTS: schema.to_parquet(pa.table(columns), {})}, {})


def keep(run: "Run", labels: Commit, classes: int, count: Callable[[], np.ndarray]) -> np.ndarray:
    """The committed counts of ``labels``, int64 (classes, bins); made by ``count`` where there are none yet."""

    def work(stage: Output) -> tuple[dict[str, Any], int]:
        publish(stage, count())
        return {}, 1

    shape = (classes, bins.BINS["paper"])
    made = run.ensure(f"{labels.stage}/counts", inputs_of(labels), work).parts[0].objects[COUNTS]
    table = schema.from_parquet(made.read(run.store), made.key)
    counts = np.zeros(shape, np.int64)
    counts[as_numpy(table["label"]), as_numpy(table["bin"])] = as_numpy(table["count"])
    return counts


def inputs_of(labels: Commit) -> dict[str, Any]:
    """What the counts of a label commit are made from."""
    return {"labels": labels.digest, "bins": bins.BINS["paper"]}
