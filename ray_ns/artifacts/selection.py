"""A committed selection: a part for each label shard, and a last one of the rows that only all could decide."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ray_ns.artifacts.artifact import Artifact
from ray_ns.labels import schema
from ray_ns.labels.arrow import as_arrow, as_numpy
from ray_ns.store.commit import Part, StoredObject
from ray_ns.store.objects import ObjectStore

SELECTION = "selection.parquet"


class Selection(Artifact):
    """What ``select`` commits: the labels that are confident enough, balanced by class."""

    @property
    def summary(self) -> Mapping[str, Any]:
        """The selection in figures."""
        return self.commit.summary

    @property
    def parts(self) -> Sequence[Part]:
        """A part per label shard, then the last one."""
        return self.commit.parts

    @property
    def of_shards(self) -> list[tuple[StoredObject, StoredObject]]:
        """Of each label shard the two files that hold what is selected of it: its own, and the last part's."""
        *own, last = (part.objects[SELECTION] for part in self.parts)
        return [(stored, last) for stored in own]

    @property
    def images(self) -> int:
        """How many images are selected."""
        return int(self.summary["images"])

    @property
    def copies(self) -> int:
        """How many times they are used in all: scarce classes are duplicated."""
        return int(self.summary["copies"])

    @property
    def left_out(self) -> Mapping[str, int]:
        """Images of the pool that were known already, by where from."""
        return dict(self.summary.get("left_out", {}))


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
