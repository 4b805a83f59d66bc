"""Top-1 of a network in training on validation images, with the decoding and forward pass of labelling."""

from collections.abc import Iterator

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from ray_ns.config import Config
from ray_ns.corpora.corpus import Corpus
from ray_ns.engine.workers.slices import Piece, Reader, Slice, cut
from ray_ns.models.predictor import Teacher
from ray_ns.train.step import NotFiniteError

# At most so many images score a network, and their pixels take at most so many bytes over all workers.
IMAGES = 4096
BYTES = 512 * 2**20


class Score:
    """Called with a network, gives its top-1 (0..1). All of ``world`` workers must call, and get the same.

    Each worker scores its share of the corpus's images, or of ``IMAGES`` of them, evenly spread. They are decoded at
    the first call and kept. An unreadable image counts as wrong, as in an evaluation.
    """

    def __init__(self, config: Config, corpus: Corpus, device: torch.device, rank: int = 0, world: int = 1) -> None:
        self._config, self._corpus, self._device, self._world = config, corpus, device, world
        self._labels = corpus.labels(config.data.classes)
        total = sum(map(len, self._labels))
        self._count = max(1, min(total, IMAGES, BYTES // (config.data.size**2 * config.data.channels)))
        # A worker's images are neighbours, so that seldom two workers read the same row group.
        self._rows = np.array_split(np.arange(self._count) * total // self._count, world)[rank]
        self._held: tuple[np.ndarray, np.ndarray] | None = None

    def __call__(self, network: nn.Module) -> float:
        """The share of right answers. ``network`` is left in eval mode.

        Raises ``NotFiniteError``, on all workers, where what it says of an image is NaN or infinite.
        """
        if self._world > 1:
            # Running statistics of batch norm differ between workers; those of the first one are committed.
            for buffer in network.buffers():
                dist.broadcast(buffer, 0)
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)  # the teacher computes on a stream of its own
        label = self._config.label
        teacher = Teacher(network, self._config.data, label.slice_rows, label.precision, self._device)
        images, truth = self._images()
        said = teacher(images)
        void = np.isnan(said).any(1) & (truth >= 0)
        found = torch.tensor([(said.argmax(1) == truth).sum(), void.sum()], device=self._device)
        if self._world > 1:
            dist.all_reduce(found)
        right, of_no_use = found.tolist()
        if of_no_use:
            raise NotFiniteError(
                f"the network says NaN or infinite numbers of {of_no_use:,} of {self._count:,} validation images. "
                f"Lower optimizer.lr, or lengthen optimizer.warmup_steps."
            )
        return right / self._count

    def _images(self) -> tuple[np.ndarray, np.ndarray]:
        """This worker's images, uint8 (n, size, size, channels), and their classes, -1 where one cannot be read."""
        if self._held is None:
            data = self._config.data
            images = np.empty((len(self._rows), data.size, data.size, data.channels), np.uint8)
            truth = np.concatenate(self._labels)[self._rows]
            reader, done = Reader(self._config), 0
            for slice_ in self._slices():
                end = done + slice_.rows
                images[done:end], reasons = reader.read({slice_.corpus: self._corpus}, slice_)
                truth[done:end][[reason is not None for reason in reasons]] = -1
                done = end
            self._held = images, truth
        return self._held

    def _slices(self) -> Iterator[Slice]:
        """This worker's rows as slices."""
        first = 0
        for shard, labels in zip(self._corpus.shards, self._labels, strict=True):
            wanted = self._rows[slice(*self._rows.searchsorted([first, first + len(labels)]))] - first
            first += len(labels)
            if len(wanted):
                group_rows = self._corpus.open(shard).group_rows
                yield from cut("validation", Piece(shard), group_rows, self._config.label.slice_rows, wanted)
