"""The order in which images reach training: a pure function of (seed, stream, position).

Five images a to e in three row groups, b with 2 copies and e with 3; batches of 6, seed 3::

    row groups       G0: a b      G1: c d      G2: e
    visit            0    1       2            3   4   5      one reading of one row group; copy j is in its j-th visit
    entry            0 1  0       0 1          0   0   0      an image within its visit
    image            a b  b       c d          e   e   e

    one epoch        visits 1 0 4 2 3 5                       permuted anew in every epoch
    place            0    1 2  3  |  4 5  6    7              an entry within the epoch
    image            b    a b  e  |  c d  e    e
    part             0            |  1                        equal runs of places, as many as there are streams

    stream 0         part 0 of epoch 0, part 1 of epoch 1, part 0 of epoch 2, ...  without end
    stream 1         part 1 of epoch 0, part 0 of epoch 1, ...
    window           WINDOW visits of a part; its entries are shuffled inside it
    position         an entry within its stream:  stream 0: b b e a | ...   stream 1: e c e d | ...

    global batch     3 slots of each stream: step 0 takes positions 0 1 2 of each, step 1 positions 3 4 5
    slot             0 1 2   3 4 5                            a place for an image in the global batch
    image (step 0)   b b e   e c e
    share            worker 0: slots 0 1 2, worker 1: slots 3 4 5; each loader process has a share of its worker's

So a resume needs only the step; the global order is the same for every number of workers; reading stays local to few
row groups; and every entry comes exactly once per epoch.
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
        """(visit, entry) of every slot in the share of ``rank`` of ``world`` of the batch of ``step``."""
        each = self._batch // self.streams
        return [self._at(slot // each, step * each + slot % each) for slot in self.share(rank, world)]

    def share(self, rank: int, world: int) -> range:
        """The slots of the global batch that ``rank`` of ``world`` has: neighbours, so that they are of few streams."""
        return range(rank * self._batch // world, (rank + 1) * self._batch // world)

    def _at(self, stream: int, position: int) -> tuple[int, int]:
        """(visit, entry) at a position of a stream, looked up directly: mid-epoch costs what the beginning does.

        A stream takes the next part in every epoch, so it walks through the places in turn: it begins at the first
        place of its first part, and comes to the same place again after ``total`` entries.
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
        """The places of a stream's part of an epoch. Its part moves on every epoch, so that unequal parts even out."""
        part = (stream + epoch) % self.streams
        return part * self._total // self.streams, (part + 1) * self._total // self.streams

    def _read_epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The epoch's order of visits, and the first place of each (and the number of places at the end)."""
        order = permutation(len(self._sizes), self._seed, epoch)
        return order, np.concatenate([[0], self._sizes[order].cumsum()])

    def _read_window(self, epoch: int, stream: int, first: int) -> tuple[np.ndarray, np.ndarray]:
        """(visits, entries), shuffled, of the window that begins at the epoch's ``first``-th visit, within the part."""
        low, high = self._part(epoch, stream)
        order, begins = self._epoch(epoch)
        last = min(first + WINDOW, len(order))
        places = np.arange(max(low, begins[first]), min(high, begins[last]))
        places = places[permutation(len(places), self._seed, epoch, stream, first)]
        at = np.searchsorted(begins, places, "right") - 1
        return order[at], places - begins[at]
