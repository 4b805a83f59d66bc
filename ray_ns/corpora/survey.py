"""A survey of a corpus: counts, formats, sizes, classes, unreadable images and why, and a sample to look at.

Several processes look at one row group each and return counts; memory does not grow with the corpus.
"""

import io
import multiprocessing
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import chain
from typing import Any

import numpy as np
from PIL import Image

from ray_ns.config import Label
from ray_ns.corpora.corpus import Corpus, Shard, ShardReader, image_ids, split_ids
from ray_ns.images.decode import FORMATS, Decode, Reason
from ray_ns.images.isolate import SafeDecode
from ray_ns.keyed import hashes

TILE = 96  # side of a sampled image in pixels
FIRST = 5  # bad images named for each reason
DIGITS = 3  # significant digits of numbers of bytes, which are rounded before they are counted


@dataclass(frozen=True)
class Tile:
    """One image of the sample: uint8 (TILE, TILE, 3), or why it is unreadable; its label if the corpus has labels."""

    content: np.ndarray | Reason
    label: Any


@dataclass
class Survey:
    """Counts over images; ``bytes`` (rounded), ``widths`` and ``heights`` (pixels) count images by value.

    ``bad``: the names of the first images for each reason. ``tiles``: the sample by ImageId.
    """

    images: int = 0
    formats: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    labels: Counter[Any] = field(default_factory=Counter)
    bytes: Counter[int] = field(default_factory=Counter)
    widths: Counter[int] = field(default_factory=Counter)
    heights: Counter[int] = field(default_factory=Counter)
    bad: dict[str, list[str]] = field(default_factory=dict)
    tiles: dict[int, Tile] = field(default_factory=dict)

    def add(self, later: "Survey") -> None:
        """Count the images of ``later`` too."""
        self.images += later.images
        for name in ("formats", "reasons", "labels", "bytes", "widths", "heights"):
            getattr(self, name).update(getattr(later, name))
        for reason, names in later.bad.items():
            self.bad[reason] = (self.bad.get(reason, []) + names)[:FIRST]
        self.tiles |= later.tiles


def quantiles(counted: Counter[int], shares: tuple[float, ...] = (0.0, 0.05, 0.5, 0.95, 1.0)) -> list[int]:
    """The values below which these shares of the counted values lie; an empty list if nothing was counted."""
    if not counted:
        return []
    values = np.array(sorted(counted))
    upto = np.cumsum([counted[value] for value in values.tolist()])
    return values[np.searchsorted(upto, np.array(shares) * upto[-1])].tolist()


@dataclass(frozen=True)
class Group:
    """One row group of a shard; ``first``: its first row in the shard; ``sampled``: its rows that become tiles."""

    shard: Shard
    number: int
    first: int
    sampled: frozenset[int]


def survey(
    corpus: Corpus, workers: int, sample: int = 0, seed: int = 0, progress: Callable[[int], None] = lambda _: None
) -> Survey:
    """Decode every image of ``corpus`` as a teacher would, with ``workers`` processes.

    ``sample``: how many images, drawn by ``seed``, are kept as tiles. ``progress`` is called with the number of images
    so far. An image that hangs or crashes its decoder counts as unreadable. Raises ``InputError`` for damaged shards.
    """
    whole = Survey()
    left = _groups(corpus, drawn(corpus, sample, seed))
    look = partial(_look, corpus)
    deaths = 0
    again: list[Group] = []
    while True:
        # Spawned, not forked: this process has threads.
        with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
            under_way: deque[tuple[Group, Future[Survey]]] = deque()
            groups = chain(again, left)
            try:
                for group in groups:
                    under_way.append((group, pool.submit(look, group)))
                    if len(under_way) >= 4 * workers:
                        whole.add(under_way[0][1].result())
                        under_way.popleft()
                        deaths = 0
                        progress(whole.images)
                while under_way:
                    whole.add(under_way[0][1].result())
                    under_way.popleft()
                    deaths = 0
                    progress(whole.images)
                return whole
            except BrokenProcessPool:
                # A decoder ended its process. The next process to get that row group decodes it with care, so there
                # are never more deaths in a row than groups under way, unless something else ends the processes.
                deaths += 1
                if deaths > 4 * workers:
                    raise
                again = [group for group, _ in under_way]


def drawn(corpus: Corpus, count: int, seed: int) -> np.ndarray:
    """The ``count`` images (ImageIds, int64 ascending) with the smallest keyed hashes: always the same ones."""
    ids, keys = np.zeros(0, np.int64), np.zeros(0, np.uint64)
    for shard in corpus.shards if count else ():
        more = image_ids(shard.ordinal, np.arange(sum(corpus.open(shard).group_rows)))
        ids, keys = np.concatenate([ids, more]), np.concatenate([keys, hashes(more, seed)])
        order = np.argsort(keys, kind="stable")[:count]
        ids, keys = ids[order], keys[order]
    return np.sort(ids)


def _groups(corpus: Corpus, sample: np.ndarray) -> Iterator[Group]:
    ordinals, rows = split_ids(sample)
    for shard in corpus.shards:
        of_shard = rows[ordinals == shard.ordinal]
        first = 0
        for number, count in enumerate(corpus.open(shard).group_rows):
            of_group = of_shard[(of_shard >= first) & (of_shard < first + count)] - first
            yield Group(shard, number, first, frozenset(of_group.tolist()))
            first += count


@lru_cache(1)
def _opened(corpus: Corpus, shard: Shard) -> tuple[ShardReader, list[Any] | None]:
    """A shard's reader and its labels, as names if they have names."""
    reader = corpus.open(shard)
    if corpus.label_column is None:
        return reader, None
    names = dict(enumerate(corpus.class_names() or ()))
    return reader, [names.get(label, label) for label in reader.labels().to_pylist()]


@lru_cache(1)
def _decoder() -> SafeDecode:
    """The decoder of this process, which uses one thread: there are several processes."""
    import torch

    torch.set_num_threads(1)
    return SafeDecode(Decode(TILE, 3), Label().image_seconds)


def _look(corpus: Corpus, group: Group) -> Survey:
    """The survey of one row group."""
    reader, labels = _opened(corpus, group.shard)
    encoded = reader.images(group.number)
    found = Survey(images=len(encoded))
    run = f"{corpus.root} {group.shard.path} {group.shard.stamp} {group.number}"
    for row, outcome in enumerate(_decoder()(run, (value.as_py() for value in encoded))):
        data, at = encoded[row].as_py() or b"", group.first + row
        found.bytes[int(float(f"{len(data):.{DIGITS}g}"))] += 1
        if isinstance(outcome, Reason):
            found.reasons[str(outcome)] += 1
            found.bad.setdefault(str(outcome), []).append(reader.where(at))
        else:
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            found.formats[image.format or ""] += 1
            found.widths[image.width] += 1
            found.heights[image.height] += 1
        label = None if labels is None else labels[at]
        if labels is not None:
            found.labels[label] += 1
        if row in group.sampled:
            found.tiles[int(image_ids(group.shard.ordinal, np.array(at)))] = Tile(outcome, label)
    found.bad = {reason: names[:FIRST] for reason, names in found.bad.items()}
    return found
