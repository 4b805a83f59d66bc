"""Label and selection tables as the parts of a stage hold them, and how their columns are read and checked."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ray_ns.labels import schema
from ray_ns.store.commit import Part
from ray_ns.store.objects import ObjectStore

LABELS = "labels.parquet"
SELECTION = "selection.parquet"
FOOTER = "footer"


def label_objects(table: pa.Table, lineage: Mapping[str, str]) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The objects of a label part, and of its facts the hash of its footer, by which columns of it can be checked."""
    data = schema.to_parquet(table, lineage)
    return {LABELS: data}, {FOOTER: schema.footer_hash(data)}


def labelled(store: ObjectStore, part: Part, columns: Sequence[str]) -> pa.Table:
    """These columns of a label part's rows that have a label; lists stay the bytes that they are in the file.

    Checked are the pages read and the footer, which is all that is used, or all of a part that an earlier version made.
    """
    stored, footer = part.objects[LABELS], part.facts.get(FOOTER)
    if footer is None:
        data = stored.read(store)
    else:
        with stored.open(store) as file:
            data = file.read()  # in one go, which takes half the time of reading columns one by one
    table = schema.from_parquet(data, stored.key, columns, lists=False, footer=footer)
    return table.filter(pc.is_valid(table["label"])) if table["label"].null_count else table
