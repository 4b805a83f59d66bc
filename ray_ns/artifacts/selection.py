"""A committed selection: a part for each label shard, and a last one of the rows that only all could decide."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ray_ns.artifacts.artifact import Artifact
from ray_ns.labels import schema
from ray_ns.labels.arrow import as_arrow, as_numpy
from ray_ns.store.commit import Part
from ray_ns.store.objects import ObjectStore

SELECTION = "selection.parquet"
ENDS = "ends"


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
    def of_shards(self) -> list[tuple[Part, Part]]:
        """Of each label shard the two parts that hold what is selected of it: its own, and the last one."""
        *own, last = self.parts
        return [(part, last) for part in own]

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
    *parts, last = selection
    edges = Edges(store, last, columns)
    for number, own in enumerate(parts):
        yield edges.joined(number, own)


def ends_of(parts: np.ndarray, shards: int) -> list[int]:
    """Where the rows of each label shard end, in a table of rows of label shards ``parts``, ascending."""
    return [int(end) for end in np.searchsorted(parts, np.arange(shards), side="right")]


class Edges:
    """The last part of a selection: rows of all label shards, which could only be decided together.

    Which rows are whose is a fact of the part, ``ENDS``; in formats 1 and 2 it is a column of its table, ``part``.
    """

    def __init__(self, store: ObjectStore, last: Part, columns: Sequence[str]) -> None:
        self._store, self._columns = store, columns
        stored = last.objects[SELECTION]
        ends = last.facts.get(ENDS)
        table = schema.from_parquet(stored.read(store), stored.key, columns if ends is not None else (*columns, "part"))
        if ends is None:
            self._parts = as_numpy(table["part"])
            table = table.drop_columns(["part"])
        else:
            self._parts = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))
        self._table = table

    def joined(self, part: int, made: Part) -> pa.Table:
        """All that is selected of the label shard ``part``, by ascending id; ``made`` is its own part."""
        stored = made.objects[SELECTION]
        own = schema.from_parquet(stored.read(self._store), stored.key, self._columns)
        begin, end = np.searchsorted(self._parts, [part, part + 1])
        if begin == end:
            return own
        both = pa.concat_tables([own, self._table.slice(begin, end - begin)])
        return both.take(as_arrow(np.argsort(as_numpy(both["image_id"]), kind="stable")))
