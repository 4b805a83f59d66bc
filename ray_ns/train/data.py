"""Images for training: from (visit, entry) to pixels and a target, straight from the shards of a corpus."""

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
    """One reading in a row group: its images with more than ``copy`` copies.

    ``ids`` and ``copies`` are views of the whole corpus's arrays from ``first`` on, so a visit holds a few words
    whatever the size of the group; ``base`` is the ImageId of the group's row 0.
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
        """Rows of the group that are used, int64 (size,)."""
        return self.ids[self.copies > self.copy] - self.base

    @property
    def targets(self) -> np.ndarray:
        """The row of the target table of each, int64 (size,)."""
        return self.first + np.flatnonzero(self.copies > self.copy)


class Visits(Sequence[Visit]):
    """All visits of a corpus, 40 bytes each: a big selection has millions, and loader processes share one array.

    ``table``: one row of ``COLUMNS`` per visit, ``shard`` being its place in ``shards``; the visit's images are
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
        """Images of each."""
        return self._table["size"]

    @cached_property
    def images(self) -> int:
        """Different images of all."""
        return int(self.sizes[self._table["copy"] == 0].sum())


def visits_of(corpus: Corpus, ids: np.ndarray, copies: np.ndarray) -> Visits:
    """The visits that give image ``ids[i]`` ``copies[i]`` times: copy j of an image lies in the group's j-th visit.

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
    """What one visit gives: its images' rows in the group and in the target table, and the images where read.

    ``left``: how many have not come yet.
    """

    rows: np.ndarray
    targets: np.ndarray
    left: int
    encoded: Any = None


class Images:
    """Decoded images of one corpus by (visit, entry), with a target each.

    ``targets(rows)`` gives float32 (n, classes) for rows of the target table. The encoded images of up to ``room``
    visits are held until they have come, in up to ``HELD_BYTES``, and decoded ones as long as ``CACHE_BYTES`` lasts: a
    small corpus is decoded once. ``bytes_read``: bytes of the shards read for images so far, used or not;
    ``bytes_used``: of the encoded images that have come, each time one comes. ``unreadable``: why images that have come
    cannot be read, by name; they keep their place in the order and teach nothing.
    """

    def __init__(
        self,
        corpus: Corpus,
        visits: Visits,
        decode: Decode,
        targets: Callable[[np.ndarray], np.ndarray],
        max_quarantined: float = 0.0,
    ) -> None:
        self.visits = visits
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
        self._held: dict[int, _Held] = {}  # the one used last at the end
        self._held_bytes = 0
        self._decoded: dict[tuple[int, int, int], tuple[np.ndarray | None, int]] = {}  # and bytes of the encoded image
        self._decoded_room = CACHE_BYTES

    @property
    def sizes(self) -> np.ndarray:
        """Entries of each visit."""
        return self.visits.sizes

    def image(self, visit: int, entry: int) -> tuple[np.ndarray, int]:
        """Pixels, uint8 (size, size, channels), and the row of the target table; black and ``NO_TARGET`` if unreadable.

        ``InputError`` where more than the share ``max_quarantined`` of the corpus has been.
        """
        place, held = self.visits[visit], self._visit(visit)
        pixels, target = self._pixels(place, held, entry), int(held.targets[entry])
        held.left -= 1
        if not held.left:
            self._forget(visit)
        if pixels is None:
            side, channels = self._decode.size, self._decode.channels
            return np.zeros((side, side, channels), np.uint8), NO_TARGET
        return pixels, target

    def _pixels(self, place: Visit, held: _Held, entry: int) -> np.ndarray | None:
        row = int(held.rows[entry])
        key = (place.shard.ordinal, place.group, row)
        if key in self._decoded:
            pixels, size = self._decoded[key]
            self.bytes_used += size
            return pixels
        if held.encoded is None:
            self._read(place, held)
        encoded = held.encoded[entry].as_py()
        size = len(encoded or b"")
        self.bytes_used += size
        decoded = self._decode(encoded)
        if isinstance(decoded, Reason):
            self._leave_out(place, row, decoded)
            self._decoded[key] = None, size
            return None
        if self._decoded_room >= decoded.nbytes:
            self._decoded_room -= decoded.nbytes
            self._decoded[key] = decoded, size
        return decoded

    def _leave_out(self, place: Visit, row: int, reason: Reason) -> None:
        reader = self._open(place.shard)
        self.unreadable[reader.where(sum(reader.group_rows[: place.group]) + row)] = str(reason)
        self._reasons[reason] += 1
        share, setting = self._max_quarantined, "data.max_quarantined"
        refuse_above(share, self.visits.images, self._reasons, self._corpus.root, setting, self.unreadable)

    def _visit(self, visit: int) -> _Held:
        """The visit, the one used last; for a new one those go that nobody has used for longest."""
        held = self._held.pop(visit, None)
        if held is None:
            while len(self._held) >= self.room or (self._held and self._held_bytes > HELD_BYTES):
                self._forget(next(iter(self._held)))
            place = self.visits[visit]
            held = _Held(place.rows, place.targets, place.size)
        self._held[visit] = held
        return held

    def _read(self, place: Visit, held: _Held) -> None:
        reader = self._open(place.shard)
        before = reader.bytes_read
        held.encoded = reader.images(place.group, held.rows)
        self.bytes_read += reader.bytes_read - before
        self._held_bytes += held.encoded.nbytes

    def _forget(self, visit: int) -> None:
        encoded = self._held.pop(visit).encoded
        self._held_bytes -= 0 if encoded is None else encoded.nbytes


@dataclass(frozen=True)
class Batch:
    """One worker's share of a step, source after source.

    ``images`` uint8 (B, size, size, channels), ``targets`` float32 (B, classes), ``counts``: how many are of each
    source, ``bytes_read``: bytes of the shards that were read for it, ``bytes_used``: those that its images are encoded
    in. ``unreadable``: why images of it that have not come before are black and have targets of zeros, by name.
    """

    images: torch.Tensor
    targets: torch.Tensor
    counts: tuple[int, ...]
    bytes_read: int = 0
    bytes_used: int = 0
    unreadable: Mapping[str, str] = field(default_factory=dict)


class Steps(Dataset["Batch | RayNsError"]):
    """A map-style dataset whose item ``step`` is that step's ``Batch`` for one worker.

    ``sources``: images, and how many of them a step has over all workers.
    ``bytes_read`` and ``bytes_used`` count what ``batches`` has given: their quotient is the read amplification.
    ``unreadable``: why images among them cannot be read, by name.
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
        return self.part(step, 0, 1)

    @property
    def most_parts(self) -> int:
        """Into how many parts a batch can be cut so that each has an image."""
        return max(len(order.share(self._rank, self._world)) for _, order in self._sources)

    def part(self, step: int, part: int, parts: int) -> "Batch | RayNsError":
        """One of ``parts`` parts of the batch of ``step``. Each part has streams, and so visits, of its own."""
        try:
            return self._part(step, self._rank * parts + part, self._world * parts)
        except RayNsError as error:
            return error  # as a value: a loader process would wrap what is raised in a text of its own

    def _part(self, step: int, part: int, parts: int) -> Batch:
        pixels, targets, counts = [], [], []
        read, used = self._bytes()
        found: dict[str, str] = {}
        for number, (images, order) in enumerate(self._sources):
            # The windows that are open, a visit each that another stream shares, and one window that begins.
            images.room = -(-order.streams // parts) * (WINDOW + 1) + WINDOW
            rows = []
            known = len(images.unreadable)
            slots = order.slots(step, part, parts)
            for place, slot in zip(order.share(part, parts), slots, strict=True):
                image, row = images.image(*slot)
                pixels.append(self._augment(image, seed(self._key, step, number, place)) if self._augment else image)
                rows.append(row)
            targets.append(_targets(images, np.array(rows, np.int64)))
            counts.append(len(slots))
            found.update(itertools.islice(images.unreadable.items(), known, None))
        read_now, used_now = self._bytes()
        whole = torch.from_numpy(np.stack(pixels)), torch.from_numpy(np.concatenate(targets))
        return Batch(*whole, tuple(counts), read_now - read, used_now - used, found)

    def _bytes(self) -> tuple[int, int]:
        """Read and used so far."""
        images = [it for it, _ in self._sources]
        return sum(it.bytes_read for it in images), sum(it.bytes_used for it in images)


def _targets(images: Images, rows: np.ndarray) -> np.ndarray:
    """The targets of ``rows``; zeros, whose cross-entropy is nothing whatever the network says, for ``NO_TARGET``."""
    targets = images.targets(np.maximum(rows, 0))
    targets[rows == NO_TARGET] = 0
    return targets


class _Parts(Dataset["Batch | RayNsError"]):
    """Item ``parts x step + part``: what the loader process numbered ``part`` makes of a step."""

    def __init__(self, steps: Steps, parts: int) -> None:
        self._steps, self._parts = steps, parts

    def __getitem__(self, item: int) -> "Batch | RayNsError":
        return self._steps.part(*divmod(item, self._parts), self._parts)


def batches(steps: Steps, first: int, end: int, workers: int) -> Iterator[Batch]:
    """The batches of steps first .. end-1, read ahead by ``workers`` processes (0: in this one).

    Every process makes its part of every batch, as the DataLoader gives its items to them in turn: were whole steps
    dealt out, each process would read every row group.
    """
    parts = max(1, min(workers, steps.most_parts))
    loader = DataLoader(
        _Parts(steps, parts),
        batch_size=None,
        sampler=range(first * parts, end * parts),
        num_workers=parts if workers else 0,
        multiprocessing_context="fork" if workers else None,  # what a selection holds is shared, not copied
    )
    pieces = iter(loader)
    for _ in range(first, end):
        made = list(itertools.islice(pieces, parts))
        for piece in made:
            if isinstance(piece, RayNsError):
                raise piece
        batch = made[0] if parts == 1 else _joined(made)
        steps.bytes_read += batch.bytes_read
        steps.bytes_used += batch.bytes_used
        steps.unreadable |= batch.unreadable
        yield batch


def _joined(pieces: Sequence[Batch]) -> Batch:
    """One batch of the ``pieces`` of a step, source after source."""

    def joined(of: Callable[[Batch], torch.Tensor]) -> torch.Tensor:
        by_source = zip(*(of(it).split(it.counts) for it in pieces), strict=True)
        return torch.cat([of_piece for of_source in by_source for of_piece in of_source])

    return Batch(
        joined(lambda it: it.images),
        joined(lambda it: it.targets),
        tuple(map(sum, zip(*(it.counts for it in pieces), strict=True))),
        sum(it.bytes_read for it in pieces),
        sum(it.bytes_used for it in pieces),
        {name: why for it in pieces for name, why in it.unreadable.items()},
    )
