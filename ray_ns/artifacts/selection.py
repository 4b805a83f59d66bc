"""A committed selection as tables: each label shard's own part, joined with what the last part holds of it."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from ray_ns.artifacts.labels import SELECTION
from ray_ns.labels import schema
from ray_ns.labels.arrow import as_arrow, as_numpy
from ray_ns.store.commit import Part, StoredObject
from ray_ns.store.objects import ObjectStore


def tables(store: ObjectStore, selection: Sequence[Part], soft: bool) -> Iterator[pa.Table]:
    """What the parts of a committed selection hold of each label shard; ``soft``: False leaves soft labels out."""
    columns = ("image_id", "label", "copies", *(schema.SOFT if soft else ()))
    *parts, last = (part.objects[SELECTION] for part in selection)
    edges = Edges(store, last, columns)
    for number, stored in enumerate(parts):
        yield edges.joined(number, stored)


class Edges:
    """The last part of a selection: rows of all label shards, which could only be decided together."""

    def __init__(self, store: ObjectStore, stored: StoredObject, columns: Sequence[str]) -> None:
        self._store, self._columns = store, columns
        table = schema.from_parquet(stored.read(store), stored.key, (*columns, "part"))
        self._parts = as_numpy(table["part"])
        self._table = table.drop_columns(["part"])

    def joined(self, part: int, stored: StoredObject) -> pa.Table:
        """All that is selected of the label shard ``part``, by ascending id; ``stored`` is its own part."""
        own = schema.from_parquet(stored.read(self._store), stored.key, self._columns)
        begin, end = np.searchsorted(self._parts, [part, part + 1])
        if begin == end:
            return own
        both = pa.concat_tables([own, self._table.slice(begin, end - begin)])
        return both.take(as_arrow(np.argsort(as_numpy(both["image_id"]), kind="stable")))
