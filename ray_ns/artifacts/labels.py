"""A pool's labels: one part per label shard, each with its Parquet file and a checksum that is fast to compare."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from ray_ns.artifacts.artifact import Artifact
from ray_ns.labels import files, schema
from ray_ns.labels.arrow import as_arrow, as_numpy
from ray_ns.seals import digest
from ray_ns.store.commit import Part
from ray_ns.store.objects import ObjectStore

LABELS = "labels.parquet"
XXH3 = "xxh3"
TEMPERATURE, VIEWS, OTHERS = "temperature", "views", "others"


class Labels(Artifact):
    """What ``label`` commits."""

    @property
    def parts(self) -> Sequence[Part]:
        """The label shards, in order."""
        return self.commit.parts

    @property
    def per_class(self) -> list[int]:
        """Labels of each class."""
        return list(self.commit.summary["per_class"])

    @property
    def quarantine(self) -> Mapping[str, int]:
        """Images that cannot be read, by reason."""
        return dict(self.commit.summary["quarantine"])

    @property
    def left_out(self) -> Mapping[str, int]:
        """Images that are known already, by where from."""
        return dict(self.commit.summary.get("left_out", {}))  # labels of an earlier version knew of none

    @property
    def temperature(self) -> float:
        """What the teacher's logits were divided by."""
        return float(self.commit.summary.get(TEMPERATURE, 1.0))

    @property
    def views(self) -> str:
        """Over which views of an image its probabilities were averaged (``label.views``)."""
        return str(self.commit.summary.get(VIEWS, "one"))

    @property
    def others(self) -> int:
        """With how many other networks the teacher's probabilities were averaged."""
        return len(self.commit.summary.get(OTHERS, []))

    @property
    def content(self) -> str | None:
        """A digest of all images' bytes, in order; None for labels of a part of the pool, or of an earlier version."""
        checksums = [part.facts.get("content") for part in self.parts]
        return digest(checksums) if all(checksums) else None


def label_objects(
    table: pa.Table, lineage: Mapping[str, str], about: files.About | None = None
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The objects of a label part, and a fact of it: a checksum that takes a twentieth of the time of a sha256.

    ``about``: None in a run of format 1 or 2.
    """
    data = files.to_parquet(table, about, lineage) if about else schema.to_parquet(table, lineage)
    return {LABELS: data}, {XXH3: xxhash.xxh3_64_hexdigest(data)}


def labelled(store: ObjectStore, part: Part, columns: Sequence[str]) -> pa.Table:
    """These columns of a label part's rows that have a label. Lists that are bytes in the file stay that.

    Checked by the part's XXH3, or by its sha256 where an earlier version made it.
    """
    table, rows = with_labelled_rows(store, part, columns)
    return table if len(rows) == table.num_rows else pc.take(table, as_arrow(rows), boundscheck=False)


def with_labelled_rows(store: ObjectStore, part: Part, columns: Sequence[str]) -> tuple[pa.Table, np.ndarray]:
    """These columns of all rows, and the numbers of those that have a label, int64: taking lists costs time per row."""
    stored = part.objects[LABELS]
    table = schema.from_parquet(stored.read(store, part.facts.get(XXH3)), stored.key, columns, lists=False)
    if not table["label"].null_count:
        return table, np.arange(table.num_rows)
    return table, np.flatnonzero(as_numpy(pc.cast(pc.is_valid(table["label"]), pa.uint8())))
