"""Images for training: from (visit, entry) to pixels and a target, straight from the shards of a corpus.

``train.sampler`` has a picture of visits, entries, slots and shares.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from ray_ns.corpora.corpus import Corpus, Shard, ShardReader
from ray_ns.corpora.unreadable import refuse_above
from ray_ns.errors import RayNsError
from ray_ns.images.decode import Decode, Reason
from ray_ns.keyed import seed
from ray_ns.train.sampler import WINDOW, Order
from ray_ns.train.visits import Visit, Visits

CACHE_BYTES = 512 * 2**20
HELD_BYTES = 4 * 2**30
OPEN_SHARDS = 64  # of a corpus at once, so that few footers are read more than once
NO_TARGET = -1


@dataclass
class _Held:
    """An open visit: of each entry its row in the row group and in the target table; the encoded images once read.

    ``left``: how many entries have not been asked for yet.
    """

    rows: np.ndarray
    targets: np.ndarray
    left: int
    encoded: Any = None


@dataclass(frozen=True)
class View:
    """One way to see an image: how it is decoded, and whether it is noised then."""

    decode: Decode
    noised: bool = True


class Images:
    """Decoded images of one corpus by (visit, entry), each in every one of ``views``, with a target.

    An image is read once for all of its views, and decoded once for those that decode alike. ``targets(rows)`` gives
    float32 (n, classes) for rows of the target table. The encoded images of up to ``room`` visits are kept until each
    was asked for, in up to ``HELD_BYTES``. Decoded images are kept until ``CACHE_BYTES`` are full, so a small corpus is
    decoded once. ``bytes_read``: bytes read from shards so far, used or not; ``bytes_used``: bytes of the encoded
    images asked for, counted each time. ``unreadable``: the reason of every image asked for that cannot be read, by
    name; such an image is black in every view, has no loss, and keeps its slot.
    """

    def __init__(
        self,
        corpus: Corpus,
        visits: Visits,
        views: Sequence[View],
        targets: Callable[[np.ndarray], np.ndarray],
        max_quarantined: float = 0.0,
    ) -> None:
        self.visits = visits
        self.views = tuple(views)
        self.targets = targets
        self.room = 1
        self.bytes_read = 0
        self.bytes_used = 0
        self.unreadable: dict[str, str] = {}
        self._reasons: Counter[str] = Counter()
        self._max_quarantined = max_quarantined
        self._corpus = corpus
        self._open: Callable[[Shard], ShardReader] = lru_cache(OPEN_SHARDS)(corpus.open)
        self._decodes = list(dict.fromkeys(view.decode for view in self.views))
        self._held: dict[int, _Held] = {}  # least recently used first
        self._held_bytes = 0
        # The pixels of each way to decode, and the size of the encoded image.
        self._decoded: dict[tuple[int, int, int], tuple[list[np.ndarray] | None, int]] = {}
        self._decoded_room = CACHE_BYTES

    @property
    def sizes(self) -> np.ndarray:
        """Entries of each visit."""
        return self.visits.sizes

    def image(self, visit: int, entry: int) -> tuple[list[np.ndarray], int]:
        """Of each view the pixels, uint8 (size, size, channels), not yet noised; and the row of the target table.

        They are black, and it is ``NO_TARGET``, where the image is unreadable.
        ``InputError`` where more of the corpus than ``max_quarantined`` (a fraction) is unreadable.
        """
        reading, held = self.visits[visit], self._visit(visit)
        decoded, target = self._pixels(reading, held, entry), int(held.targets[entry])
        held.left -= 1
        if not held.left:
            self._forget(visit)
        if decoded is None:
            shapes = [(view.decode.size, view.decode.size, view.decode.channels) for view in self.views]
            return [np.zeros(shape, np.uint8) for shape in shapes], NO_TARGET
        return [decoded[self._decodes.index(view.decode)] for view in self.views], target

    def _pixels(self, reading: Visit, held: _Held, entry: int) -> list[np.ndarray] | None:
        """The pixels of each way to decode; None where one of them cannot."""
        row = int(held.rows[entry])
        key = (reading.shard.ordinal, reading.group, row)
        if key in self._decoded:
            known, size = self._decoded[key]
            self.bytes_used += size
            return known
        if held.encoded is None:
            self._read(reading, held)
        encoded = held.encoded[entry].as_py()
        size = len(encoded or b"")
        self.bytes_used += size
        decoded = []
        for decode in self._decodes:
            pixels = decode(encoded)
            if isinstance(pixels, Reason):
                self._leave_out(reading, row, pixels)
                self._decoded[key] = None, size
                return None
            decoded.append(pixels)
        taken = sum(pixels.nbytes for pixels in decoded)
        if self._decoded_room >= taken:
            self._decoded_room -= taken
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
    """One share of a step's global batch: source after source, and of each view after view of the same images.

    ``images`` uint8 (B, size, size, channels), ``targets`` float32 (B, classes). ``counts``: how many are of each view
    of each source. ``bytes_read``: bytes read from shards for it; ``bytes_used``: bytes of its encoded images.
    ``unreadable``: the reason of every image of it that cannot be read, by name, the first time it comes; in every view
    it is black and its targets are zeros, which those of no other image are. ``first_slots``: of each source the slot
    of its first image, which the others follow; none: the batch is the global one. ``entries``: how many images were
    read for it, each once whatever its views.
    """

    images: torch.Tensor
    targets: torch.Tensor
    counts: tuple[int, ...]
    bytes_read: int = 0
    bytes_used: int = 0
    unreadable: Mapping[str, str] = field(default_factory=dict)
    first_slots: tuple[int, ...] = ()
    entries: int = 0


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
        """How many images a step has, over all workers, each once whatever its views."""
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
        pixels: list[np.ndarray] = []
        targets: list[np.ndarray] = []
        counts: list[int] = []
        shares = [order.share(rank, world) for _, order in self._sources]
        read, used = self._bytes()
        found: dict[str, str] = {}
        for number, (images, order) in enumerate(self._sources):
            # The open windows, one visit each that another stream shares, and one window that begins.
            images.room = -(-order.streams // world) * (WINDOW + 1) + WINDOW
            rows, seen = [], []
            known = len(images.unreadable)
            for slot, (visit, entry) in zip(shares[number], order.slots(step, rank, world), strict=True):
                views, row = images.image(visit, entry)
                seen.append(self._noised(images.views, views, step, number, slot))
                rows.append(row)
            for view in range(len(images.views)):
                pixels += [views[view] for views in seen]
                targets.append(_targets(images, np.array(rows, np.int64)))
                counts.append(len(seen))
            found.update(itertools.islice(images.unreadable.items(), known, None))
        read_now, used_now = self._bytes()
        whole = torch.from_numpy(np.stack(pixels)), torch.from_numpy(np.concatenate(targets))
        firsts, entries = tuple(share.start for share in shares), sum(map(len, shares))
        return Batch(*whole, tuple(counts), read_now - read, used_now - used, found, firsts, entries)

    def _noised(self, views: Sequence[View], pixels: Sequence[np.ndarray], *place: int) -> list[np.ndarray]:
        """The views of the image at a ``place`` of the training, those that are noised each by draws of its own."""
        made, times = [], 0
        for view, image in zip(views, pixels, strict=True):
            if not view.noised or self._augment is None:
                made.append(image)
                continue
            # The first one's draws are those that it would have were it the only view.
            made.append(self._augment(image, seed(self._key, *place, *([times] if times else []))))
            times += 1
        return made

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
    """The worker's batch of the ``shares`` of its loader processes, view after view."""

    def joined(of: Callable[[Batch], torch.Tensor]) -> torch.Tensor:
        by_view = zip(*(of(it).split(it.counts) for it in shares), strict=True)
        return torch.cat([of_share for of_view in by_view for of_share in of_view])

    return Batch(
        joined(lambda it: it.images),
        joined(lambda it: it.targets),
        tuple(map(sum, zip(*(it.counts for it in shares), strict=True))),
        sum(it.bytes_read for it in shares),
        sum(it.bytes_used for it in shares),
        {name: why for it in shares for name, why in it.unreadable.items()},
        shares[0].first_slots,
        sum(it.entries for it in shares),
    )
