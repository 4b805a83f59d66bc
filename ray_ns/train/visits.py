"""Visits: readings of the row groups of a corpus, in which each image comes as often as it is to come in an epoch.

``train.sampler`` has a picture of visits and entries.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ray_ns.corpora.corpus import Corpus, Shard, image_ids


@dataclass(frozen=True)
class Visit:
    """One reading of one row group: its images with more than ``copy`` copies, ``size`` of them.

    ``ids`` and ``copies`` are views of the whole corpus's arrays from ``first`` on: a visit is small whatever the size
    of its row group. ``base`` is the ImageId of the group's row 0.
    """

    shard: Shard
    group: int
    copy: int
    size: int
    base: int
    first: int
    ids: np.ndarray
    copies: np.ndarray

    @property
    def rows(self) -> np.ndarray:
        """The row of the group of each entry, int64 (size,)."""
        return self.ids[self.copies > self.copy] - self.base

    @property
    def targets(self) -> np.ndarray:
        """The row of the target table of each entry, int64 (size,)."""
        return self.first + np.flatnonzero(self.copies > self.copy)


class Visits(Sequence[Visit]):
    """All visits of a corpus, 40 bytes each: a big selection has millions, and loader processes share one array.

    ``table``: one row of ``COLUMNS`` per visit; ``shard`` is an index into ``shards``, and the row group's images are
    ``ids[first:end]``.
    """

    COLUMNS = np.dtype(
        [(name, np.int32) for name in ("shard", "group", "copy", "size")]
        + [(name, np.int64) for name in ("base", "first", "end")]
    )

    def __init__(self, shards: Sequence[Shard], ids: np.ndarray, copies: np.ndarray, table: np.ndarray) -> None:
        self._shards, self._ids, self._copies, self._table = shards, ids, copies, table

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, at: Any) -> Any:
        shard, group, copy, size, base, first, end = self._table[at].item()
        return Visit(self._shards[shard], group, copy, size, base, first, self._ids[first:end], self._copies[first:end])

    @property
    def sizes(self) -> np.ndarray:
        """Entries of each visit."""
        return self._table["size"]

    @cached_property
    def images(self) -> int:
        """Different images of all visits: copies count once."""
        return int(self.sizes[self._table["copy"] == 0].sum())


def visits_of(corpus: Corpus, ids: np.ndarray, copies: np.ndarray) -> Visits:
    """The visits that give image ``ids[i]`` ``copies[i]`` times: copy j of an image is in the row group's j-th visit.

    ``ids`` int64 (n,) ascending, ``copies`` int (n,). Targets are numbered as ``ids`` are.
    """
    tables = [np.empty(0, Visits.COLUMNS)]
    for number, shard in enumerate(corpus.shards):
        low, high = np.searchsorted(ids, image_ids(shard.ordinal, np.array([0, 2**32 - 1])))
        if low == high:
            continue
        bounds = image_ids(shard.ordinal, np.concatenate([[0], np.cumsum(corpus.open(shard).group_rows)]))
        edges = np.searchsorted(ids[low:high], bounds)
        many = copies[low:high]
        for_copy = []
        for copy in range(int(many.max())):
            sizes = np.diff(np.concatenate([[0], np.cumsum(many > copy)])[edges])
            (groups,) = np.nonzero(sizes)
            table = np.empty(len(groups), Visits.COLUMNS)
            table["shard"], table["group"], table["copy"], table["size"] = number, groups, copy, sizes[groups]
            table["base"], table["first"], table["end"] = bounds[groups], low + edges[groups], low + edges[groups + 1]
            for_copy.append(table)
        of_shard = np.concatenate(for_copy)
        tables.append(of_shard[np.lexsort((of_shard["copy"], of_shard["group"]))])
    return Visits(corpus.shards, ids, copies, np.concatenate(tables))
