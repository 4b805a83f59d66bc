"""Images for training: from (visit, entry) to pixels and a target, straight from the shards of a corpus.

``train.sampler`` has a picture of visits, entries, slots and shares.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from ray_ns.corpora.corpus import Corpus, Shard, ShardReader, image_ids
from ray_ns.corpora.unreadable import refuse_above
from ray_ns.errors import RayNsError
from ray_ns.images.decode import Decode, Reason
from ray_ns.keyed import seed
from ray_ns.train.sampler import WINDOW, Order

CACHE_BYTES = 512 * 2**20
HELD_BYTES = 4 * 2**30
OPEN_SHARDS = 64  # of a corpus at once, so that few footers are read more than once
NO_TARGET = -1


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


@dataclass
class _Held:
    """An open visit: of each entry its row in the row group and in the target table; the encoded images once read.

    ``left``: how many entries have not been asked for yet.
    """

    rows: np.ndarray
    targets: np.ndarray
    left: int
    encoded: Any = None


class Images:
    """Decoded images of one corpus by (visit, entry), with a target each.

    ``targets(rows)`` gives float32 (n, classes) for rows of the target table. The encoded images of up to ``room``
    visits are kept until each was asked for, in up to ``HELD_BYTES``. Decoded images are kept until ``CACHE_BYTES`` are
    full, so a small corpus is decoded once. ``bytes_read``: bytes read from shards so far, used or not; ``bytes_used``:
    bytes of the encoded images asked for, counted each time. ``unreadable``: the reason of every image asked for that
    cannot be read, by name; such an image is black, has no loss, and keeps its slot.
    """

    def __init__(
        self,
        corpus: Corpus,
        visits: Visits,
        decode: Decode,
        targets: Callable[[np.ndarray], np.ndarray],
        max_quarantined: float = 0.0,
        noised: bool = True,
    ) -> None:
        self.visits = visits
        self.noised = noised
        self.targets = targets
        self.room = 1
        self.bytes_read = 0
        self.bytes_used = 0
        self.unreadable: dict[str, str] = {}
        self._reasons: Counter[str] = Counter()
        self._max_quarantined = max_quarantined
        self._corpus = corpus
        self._open: Callable[[Shard], ShardReader] = lru_cache(OPEN_SHARDS)(corpus.open)
        self._decode = decode
        self._held: dict[int, _Held] = {}  # least recently used first
        self._held_bytes = 0
        self._decoded: dict[tuple[int, int, int], tuple[np.ndarray | None, int]] = {}  # and size of the encoded image
        self._decoded_room = CACHE_BYTES

    @property
    def sizes(self) -> np.ndarray:
        """Entries of each visit."""
        return self.visits.sizes

    def image(self, visit: int, entry: int) -> tuple[np.ndarray, int]:
        """Pixels, uint8 (size, size, channels), and the row of the target table; black and ``NO_TARGET`` if unreadable.

        ``InputError`` where more of the corpus than ``max_quarantined`` (a fraction) is unreadable.
        """
        reading, held = self.visits[visit], self._visit(visit)
        pixels, target = self._pixels(reading, held, entry), int(held.targets[entry])
        held.left -= 1
        if not held.left:
            self._forget(visit)
        if pixels is None:
            side, channels = self._decode.size, self._decode.channels
            return np.zeros((side, side, channels), np.uint8), NO_TARGET
        return pixels, target

    def _pixels(self, reading: Visit, held: _Held, entry: int) -> np.ndarray | None:
        row = int(held.rows[entry])
        key = (reading.shard.ordinal, reading.group, row)
        if key in self._decoded:
            pixels, size = self._decoded[key]
            self.bytes_used += size
            return pixels
        if held.encoded is None:
            self._read(reading, held)
        encoded = held.encoded[entry].as_py()
        size = len(encoded or b"")
        self.bytes_used += size
        decoded = self._decode(encoded)
        if isinstance(decoded, Reason):
            self._leave_out(reading, row, decoded)
            self._decoded[key] = None, size
            return None
        if self._decoded_room >= decoded.nbytes:
            self._decoded_room -= decoded.nbytes
            self._decoded[key] = decoded, size
        return decoded

    def _leave_out(self, reading: Visit, row: int, reason: Reason) -> None:
        reader = self._open(reading.shard)
        self.unreadable[reader.where(sum(reader.group_rows[: reading.group]) + row)] = str(reason)
        self._reasons[reason] += 1
        most, setting = self._max_quarantined, "data.max_quarantined"
        refuse_above(most, self.visits.images, self._reasons, self._corpus.root, setting, self.unreadable)

    def _visit(self, visit: int) -> _Held:
        """The open visit. To open a new one, the least recently used are closed where there is no room."""
        held = self._held.pop(visit, None)
        if held is None:
            while len(self._held) >= self.room or (self._held and self._held_bytes > HELD_BYTES):
                self._forget(next(iter(self._held)))
            reading = self.visits[visit]
            held = _Held(reading.rows, reading.targets, reading.size)
        self._held[visit] = held
        return held

    def _read(self, reading: Visit, held: _Held) -> None:
        reader = self._open(reading.shard)
        before = reader.bytes_read
        held.encoded = reader.images(reading.group, held.rows)
        self.bytes_read += reader.bytes_read - before
        self._held_bytes += held.encoded.nbytes

    def _forget(self, visit: int) -> None:
        encoded = self._held.pop(visit).encoded
        self._held_bytes -= 0 if encoded is None else encoded.nbytes


@dataclass(frozen=True)
class Batch:
    """One share of a step's global batch, source after source.

    ``images`` uint8 (B, size, size, channels), ``targets`` float32 (B, classes). ``counts``: how many are of each
    source. ``bytes_read``: bytes read from shards for it; ``bytes_used``: bytes of its encoded images. ``unreadable``:
    the reason of every image of it that cannot be read, by name, the first time it comes; it is black and its targets
    are zeros.
    """

    images: torch.Tensor
    targets: torch.Tensor
    counts: tuple[int, ...]
    bytes_read: int = 0
    bytes_used: int = 0
    unreadable: Mapping[str, str] = field(default_factory=dict)


class Steps(Dataset["Batch | RayNsError"]):
    """A map-style dataset whose item ``step`` is the worker's ``Batch`` of that step.

    ``sources``: images, and how many of them a global batch has.
    ``bytes_read`` and ``bytes_used`` count what ``batches`` has given: their quotient is the read amplification.
    ``unreadable``: the reason of every image among them that cannot be read, by name.
    """

    def __init__(
        self,
        sources: Sequence[tuple[Images, int]],
        key: int,
        rank: int,
        world: int,
        augment: Callable[[np.ndarray, int], np.ndarray] | None,
    ) -> None:
        self._sources = [
            (images, Order(images.sizes, per_step, seed(key, number)))
            for number, (images, per_step) in enumerate(sources)
        ]
        self._key, self._rank, self._world = key, rank, world
        self._augment = augment
        self.bytes_read = 0
        self.bytes_used = 0
        self.unreadable: dict[str, str] = {}

    def __getitem__(self, step: int) -> "Batch | RayNsError":
        return self.of_loader(step, 0, 1)

    @property
    def per_step(self) -> int:
        """How many images a step has, over all workers."""
        return sum(len(order.share(0, 1)) for _, order in self._sources)

    @property
    def most_loaders(self) -> int:
        """Among how many loader processes the worker's share can be divided so that each has an image."""
        return max(len(order.share(self._rank, self._world)) for _, order in self._sources)

    def of_loader(self, step: int, loader: int, loaders: int) -> "Batch | RayNsError":
        """What ``loader`` of the worker's ``loaders`` makes of a step. Each has streams, and so visits, of its own."""
        try:
            return self._batch(step, self._rank * loaders + loader, self._world * loaders)
        except RayNsError as error:
            return error  # as a value: a loader process would wrap what is raised in a text of its own

    def _batch(self, step: int, rank: int, world: int) -> Batch:
        pixels, targets, counts = [], [], []
        read, used = self._bytes()
        found: dict[str, str] = {}
        for number, (images, order) in enumerate(self._sources):
            # The open windows, one visit each that another stream shares, and one window that begins.
            images.room = -(-order.streams // world) * (WINDOW + 1) + WINDOW
            rows = []
            known = len(images.unreadable)
            share = order.share(rank, world)
            augment = self._augment if images.noised else None
            for slot, (visit, entry) in zip(share, order.slots(step, rank, world), strict=True):
                image, row = images.image(visit, entry)
                pixels.append(augment(image, seed(self._key, step, number, slot)) if augment else image)
                rows.append(row)
            targets.append(_targets(images, np.array(rows, np.int64)))
            counts.append(len(share))
            found.update(itertools.islice(images.unreadable.items(), known, None))
        read_now, used_now = self._bytes()
        whole = torch.from_numpy(np.stack(pixels)), torch.from_numpy(np.concatenate(targets))
        return Batch(*whole, tuple(counts), read_now - read, used_now - used, found)

    def _bytes(self) -> tuple[int, int]:
        """Bytes read and used so far."""
        images = [it for it, _ in self._sources]
        return sum(it.bytes_read for it in images), sum(it.bytes_used for it in images)


def _targets(images: Images, rows: np.ndarray) -> np.ndarray:
    """The targets of ``rows``; zeros for ``NO_TARGET``, whose cross-entropy is zero whatever the network says."""
    targets = images.targets(np.maximum(rows, 0))
    targets[rows == NO_TARGET] = 0
    return targets


class _ByLoader(Dataset["Batch | RayNsError"]):
    """Item ``loaders x step + loader``: what that loader process makes of a step."""

    def __init__(self, steps: Steps, loaders: int) -> None:
        self._steps, self._loaders = steps, loaders

    def __getitem__(self, item: int) -> "Batch | RayNsError":
        return self._steps.of_loader(*divmod(item, self._loaders), self._loaders)


def batches(steps: Steps, first: int, end: int, workers: int) -> Iterator[Batch]:
    """The batches of steps first .. end-1, read ahead by ``workers`` processes (0: in this one).

    Every process makes its share of every batch, as the DataLoader gives its items to them in turn: if each made whole
    batches, each would read every row group.
    """
    loaders = max(1, min(workers, steps.most_loaders))
    items = iter(
        DataLoader(
            _ByLoader(steps, loaders),
            batch_size=None,
            sampler=range(first * loaders, end * loaders),
            num_workers=loaders if workers else 0,
            multiprocessing_context="fork" if workers else None,  # a selection in memory is shared, not copied
        )
    )
    for _ in range(first, end):
        shares = list(itertools.islice(items, loaders))
        for share in shares:
            if isinstance(share, RayNsError):
                raise share
        batch = shares[0] if loaders == 1 else _joined(shares)
        steps.bytes_read += batch.bytes_read
        steps.bytes_used += batch.bytes_used
        steps.unreadable |= batch.unreadable
        yield batch


def _joined(shares: Sequence[Batch]) -> Batch:
    """The worker's batch of the ``shares`` of its loader processes, source after source."""

    def joined(of: Callable[[Batch], torch.Tensor]) -> torch.Tensor:
        by_source = zip(*(of(it).split(it.counts) for it in shares), strict=True)
        return torch.cat([of_share for of_source in by_source for of_share in of_source])

    return Batch(
        joined(lambda it: it.images),
        joined(lambda it: it.targets),
        tuple(map(sum, zip(*(it.counts for it in shares), strict=True))),
        sum(it.bytes_read for it in shares),
        sum(it.bytes_used for it in shares),
        {name: why for it in shares for name, why in it.unreadable.items()},
    )
