"""The tasks of FixRes's map: what a network's classifier sees of some images, at the train and at the test size."""

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from ray_ns.config import Config, Data
from ray_ns.corpora.corpus import Corpus
from ray_ns.engine.workers.slices import Piece, Reader, Slice, cut
from ray_ns.store.commit import StoredObject
from ray_ns.store.objects import ObjectStore

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ray_ns.models.fixres import Moments


def slices(corpus: Corpus, name: str, images: int, slice_rows: int) -> list[Slice]:
    """So many images of a corpus, evenly spread, or all where it has fewer; its ``name`` in the run."""
    counts = [sum(corpus.open(shard).group_rows) for shard in corpus.shards]
    total = sum(counts)
    wanted = np.arange(min(images, total)) * total // min(images, total)
    found, first = [], 0
    for shard, rows in zip(corpus.shards, counts, strict=True):
        here = wanted[slice(*wanted.searchsorted([first, first + rows]))] - first
        if len(here):
            found += cut(name, Piece(shard), corpus.open(shard).group_rows, slice_rows, here)
        first += rows
    return found


def seen(
    slice_: Slice,
    store: ObjectStore,
    files: Mapping[str, StoredObject],
    corpora: Mapping[str, Corpus],
    configs: tuple[Config, ...],
) -> "tuple[Moments, ...]":
    """Of the slice's readable images, what the classifier sees of them at the size of each of ``configs``."""
    import torch

    from ray_ns.models.fixres import moments

    torch.set_num_threads(1)
    network = _network(store, tuple(sorted(files.items())))
    found = []
    for config in configs:
        images, reasons = Reader(config).read(corpora, slice_)
        readable = images[[reason is None for reason in reasons]]
        found.append(moments(network, _normalised(readable, config.data)))
    return tuple(found)


@lru_cache(1)
def _network(store: ObjectStore, files: tuple[tuple[str, StoredObject], ...]) -> "nn.Module":
    from ray_ns.models.files import from_files

    return from_files({name: stored.read(store) for name, stored in files})


def _normalised(images: np.ndarray, data: Data) -> "Tensor":
    """uint8 (n, H, W, channels) to what a network takes, float32 (n, channels, H, W)."""
    import torch

    mean, std = (torch.tensor(it)[:, None, None] for it in (data.mean, data.std))
    return (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - mean) / std
