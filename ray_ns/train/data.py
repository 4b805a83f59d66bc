"""Images for training: from (visit, entry) to pixels and a target, straight from the shards of a corpus."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from ray_ns.errors import InputError, RayNsError
from ray_ns.images.corpus import Corpus, Shard, image_ids
from ray_ns.images.decode import Decode, Reason
from ray_ns.keyed import seed
from ray_ns.train.sampler import Order

CACHE_BYTES = 512 * 2**20
OPEN_GROUPS = 64


@dataclass(frozen=True)
class Visit:
    """One reading of a row group: the rows of it that are used, and the row of ``targets`` of each."""

    shard: Shard
    group: int
    rows: np.ndarray
    targets: np.ndarray


def visits_of(corpus: Corpus, ids: np.ndarray, copies: np.ndarray) -> list[Visit]:
    """The visits that give image ``ids[i]`` ``copies[i]`` times: copy j of an image lies in the group's j-th visit.

    ``ids`` int64 (n,) ascending, ``copies`` int (n,). Targets are numbered as ``ids`` are.
    """
    visits = []
    for shard in corpus.shards:
        low, high = np.searchsorted(ids, image_ids(shard.ordinal, np.array([0, 2**32 - 1])))
        if low == high:
            continue
        bounds = np.concatenate([[0], np.cumsum(corpus.open(shard).group_rows)])
        edges = low + np.searchsorted(ids[low:high], image_ids(shard.ordinal, bounds))
        for group, (begin, end) in enumerate(itertools.pairwise(edges)):
            targets = np.arange(begin, end)
            rows = ids[begin:end] - image_ids(shard.ordinal, bounds[group : group + 1])
            for copy in range(int(copies[begin:end].max(initial=0))):
                used = copies[begin:end] > copy
                visits.append(Visit(shard, group, rows[used], targets[used]))
    return visits


class Images:
    """Decoded images of one corpus by (visit, entry), with a target each.

    ``targets(rows)`` gives float32 (n, classes) for rows of the target table. Encoded row groups are held for a
    while, decoded images as long as ``CACHE_BYTES`` lasts: a small corpus is decoded once.
    """

    def __init__(
        self,
        corpus: Corpus,
        visits: Sequence[Visit],
        decode: Decode,
        targets: Callable[[np.ndarray], np.ndarray],
    ) -> None:
        self.visits = visits
        self.targets = targets
        self._corpus = corpus
        self._decode = decode
        self._group = lru_cache(OPEN_GROUPS)(self._read_group)
        self._decoded: dict[tuple[int, int, int], np.ndarray] = {}
        self._room = CACHE_BYTES

    @property
    def sizes(self) -> list[int]:
        """Entries of each visit."""
        return [len(visit.rows) for visit in self.visits]

    def image(self, visit: int, entry: int) -> np.ndarray:
        """Pixels, uint8 (size, size, channels). ``InputError`` where a training image cannot be read."""
        place = self.visits[visit]
        row = int(place.rows[entry])
        key = (place.shard.ordinal, place.group, row)
        if key in self._decoded:
            return self._decoded[key]
        pixels = self._decode(self._group(place.shard, place.group)[row].as_py())
        if isinstance(pixels, Reason):
            reader = self._corpus.open(place.shard)
            name = reader.where(sum(reader.group_rows[: place.group]) + row)
            raise InputError(f"{name}: a training image is {pixels}. Remove or mend it.")
        if self._room >= pixels.nbytes:
            self._room -= pixels.nbytes
            self._decoded[key] = pixels
        return pixels

    def target_row(self, visit: int, entry: int) -> int:
        """The entry's row in the target table."""
        return int(self.visits[visit].targets[entry])

    def _read_group(self, shard: Shard, group: int) -> Any:
        return self._corpus.open(shard).images(group)


@dataclass(frozen=True)
class Batch:
    """One worker's share of a step: labelled images first.

    ``images`` uint8 (B, size, size, channels), ``targets`` float32 (B, classes), ``labelled``: how many are labelled.
    """

    images: torch.Tensor
    targets: torch.Tensor
    labelled: int


class Steps(Dataset["Batch | RayNsError"]):
    """A map-style dataset whose item ``step`` is that step's ``Batch`` for one worker."""

    def __init__(
        self,
        labelled: Images,
        pseudo: Images | None,
        batch: int,
        ratio: int,
        key: int,
        rank: int,
        world: int,
        augment: Callable[[np.ndarray, int], np.ndarray] | None,
    ) -> None:
        self._sources = [(labelled, Order(labelled.sizes, batch, seed(key, 0)))]
        if pseudo is not None:
            self._sources.append((pseudo, Order(pseudo.sizes, batch * ratio, seed(key, 1))))
        self._key, self._rank, self._world = key, rank, world
        self._augment = augment

    def __getitem__(self, step: int) -> "Batch | RayNsError":
        try:
            return self._batch(step)
        except RayNsError as error:
            return error  # as a value: a loader process would wrap what is raised in a text of its own

    def _batch(self, step: int) -> Batch:
        pixels, targets, counts = [], [], []
        for number, (images, order) in enumerate(self._sources):
            slots = order.slots(step, self._rank, self._world)
            rows = np.array([images.target_row(*slot) for slot in slots])
            targets.append(images.targets(rows))
            counts.append(len(slots))
            first = self._rank * len(slots)
            for place, slot in enumerate(slots, first):
                image = images.image(*slot)
                pixels.append(self._augment(image, seed(self._key, step, number, place)) if self._augment else image)
        return Batch(torch.from_numpy(np.stack(pixels)), torch.from_numpy(np.concatenate(targets)), counts[0])


def batches(steps: Steps, first: int, end: int, workers: int) -> Iterator[Batch]:
    """The batches of steps first .. end-1, read ahead by ``workers`` processes (0: in this one)."""
    for batch in DataLoader(steps, batch_size=None, sampler=range(first, end), num_workers=workers):
        if isinstance(batch, RayNsError):
            raise batch
        yield batch
