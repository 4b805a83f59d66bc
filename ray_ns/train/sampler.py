"""The order in which images reach training: a pure function of (seed, stream, position).

Images lie in *visits*: one visit is what one reading of one row group gives. Every epoch permutes the visits and cuts
the row of all their entries into ``streams`` equal parts; a stream shuffles its part inside windows of ``window``
visits and goes on with the next epoch, for ever. A global batch takes the same share from every stream. So a resume
needs only the step; the global order is the same for every number of workers; reading stays local to few row groups;
and every entry comes exactly once per epoch. An image with copies has its second copy in a second visit, and so on.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from ray_ns.keyed import permutation

STREAMS = 64
WINDOW = 4


class Order:
    """The endless order of one corpus's entries.

    Args:
        sizes: entries of each visit.
        batch: entries per global step; ``streams`` is the largest number that divides it and ``STREAMS``.
        seed: decides the order.
    """

    def __init__(self, sizes: Sequence[int] | np.ndarray, batch: int, seed: int) -> None:
        self._sizes = np.asarray(sizes, np.int64)
        self._total = int(self._sizes.sum())
        if not self._total:
            raise ValueError("an order needs at least one entry")
        self._batch = batch
        self.streams = math.gcd(batch, STREAMS)
        self._seed = seed
        self._epoch = lru_cache(2)(self._read_epoch)  # one that ends and one that begins; 16 bytes per visit each
        self._window = lru_cache(4 * self.streams)(self._read_window)

    def slots(self, step: int, rank: int = 0, world: int = 1) -> list[tuple[int, int]]:
        """The (visit, entry of the visit) of every slot that ``rank`` of ``world`` has in the batch of ``step``."""
        share = self._batch // self.streams
        return [self._at(slot // share, step * share + slot % share) for slot in self.share(rank, world)]

    def share(self, rank: int, world: int) -> range:
        """The slots of a global batch that ``rank`` of ``world`` has: neighbours, so that few share a stream."""
        return range(rank * self._batch // world, (rank + 1) * self._batch // world)

    def _at(self, stream: int, position: int) -> tuple[int, int]:
        """Looked up directly, so that mid-epoch costs what the beginning does.

        A stream takes the epoch's next part in every epoch, so it walks along one endless row: it begins at its first
        part and comes to the same place again after ``total`` entries.
        """
        at = stream * self._total // self.streams + position
        epoch = ((at + 1) * self.streams - 1) // self._total - stream
        place = at % self._total
        low, _ = self._part(epoch, stream)
        _, begins = self._epoch(epoch)
        first, visit = (int(np.searchsorted(begins, it, "right")) - 1 for it in (low, place))
        first += (visit - first) // WINDOW * WINDOW
        visits, entries = self._window(epoch, stream, first)
        offset = place - max(low, int(begins[first]))
        return int(visits[offset]), int(entries[offset])

    def _part(self, epoch: int, stream: int) -> tuple[int, int]:
        """The stream's part of an epoch's row of entries. It moves on every epoch, so that unequal parts even out."""
        part = (stream + epoch) % self.streams
        return part * self._total // self.streams, (part + 1) * self._total // self.streams

    def _read_epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The epoch's order of visits, and where each begins in its row of entries (one more at the end)."""
        order = permutation(len(self._sizes), self._seed, epoch)
        return order, np.concatenate([[0], self._sizes[order].cumsum()])

    def _read_window(self, epoch: int, stream: int, first: int) -> tuple[np.ndarray, np.ndarray]:
        """(visits, entries) of the window that begins at the epoch's visit ``first``: the stream's part, shuffled."""
        low, high = self._part(epoch, stream)
        order, begins = self._epoch(epoch)
        last = min(first + WINDOW, len(order))
        places = np.arange(max(low, begins[first]), min(high, begins[last]))
        places = places[permutation(len(places), self._seed, epoch, stream, first)]
        at = np.searchsorted(begins, places, "right") - 1
        return order[at], places - begins[at]
