"""Label and selection tables as the parts of a stage hold them."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from ray_ns.labels import schema
from ray_ns.store.commit import Part
from ray_ns.store.objects import ObjectStore

LABELS = "labels.parquet"
SELECTION = "selection.parquet"
XXH3 = "xxh3"


def label_objects(table: pa.Table, lineage: Mapping[str, str]) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The objects of a label part, and a fact of it: a checksum that takes a twentieth of the time of a sha256."""
    data = schema.to_parquet(table, lineage)
    return {LABELS: data}, {XXH3: xxhash.xxh3_64_hexdigest(data)}


def labelled(store: ObjectStore, part: Part, columns: Sequence[str]) -> pa.Table:
    """These columns of a label part's rows that have a label; lists stay the bytes that they are in the file.

    Checked by the part's XXH3, or by its sha256 where an earlier version made it.
    """
    stored = part.objects[LABELS]
    data = stored.read(store, part.facts.get(XXH3))
    table = schema.from_parquet(data, stored.key, columns, lists=False)
    return table.filter(pc.is_valid(table["label"])) if table["label"].null_count else table
