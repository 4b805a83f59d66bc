"""Where ``check`` tries one step of each stage: in this process, without Ray, with nothing written."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ray_ns.config import Config, Data, Training, Views
from ray_ns.corpora.corpus import Corpus, image_ids
from ray_ns.errors import InputError
from ray_ns.export.network import Given
from ray_ns.images.decode import Decode, Reason
from ray_ns.labels import sound
from ray_ns.models.given import network_of

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ray_ns.train.selected import Selected


@dataclass(frozen=True)
class Finding:
    """What one look found: a line for people, figures for machines."""

    what: str
    line: str
    figures: dict[str, Any]


@dataclass(frozen=True)
class First:
    """The first images of a corpus: ids int64, the shard's place in the corpus, the first one's row in it, bytes."""

    ids: np.ndarray
    place: int
    row: int
    encoded: list[bytes | None]


class Bench:
    """What probes share. Each stage's probe puts here what the next ones work on.

    ``teacher``: the network of turn 0 after two steps, or the one that is ``given``; ``labels``: its label table of a
    slice of the pool; ``chosen``: what is selected from that.
    """

    teacher: "nn.Module"
    labels: pa.Table
    chosen: "Selected"

    def __init__(self, config: Config, corpora: dict[str, Corpus], given: Given | None = None) -> None:
        import torch

        self.config, self.corpora, self._given = config, corpora, given
        if given is not None:
            self.teacher = network_of(given.files, given.place)
        torch.set_num_threads(config.cluster.train_threads)

    def first(self, name: str, rows: int) -> First:
        """The first row group with rows of a corpus, ``rows`` of it at most."""
        corpus = self.corpora[name]
        for place, shard in enumerate(corpus.shards):
            reader = corpus.open(shard)
            row = 0
            for group, count in enumerate(reader.group_rows):
                if count:
                    encoded = reader.images(group).slice(0, rows).to_pylist()
                    return First(image_ids(shard.ordinal, row + np.arange(len(encoded))), place, row, encoded)
                row += count
        raise InputError(f"{corpus.root}: holds no image")

    def labelled(self, encoded: list[bytes | None], views: Views = "one") -> tuple[np.ndarray, list[str | None]]:
        """The teacher's probabilities over ``views``, float32 (n, classes), and why an image cannot be read.

        Raises ``InputError`` where one of an image that can be read is NaN.
        """
        from ray_ns.models.predictor import Teacher
        from ray_ns.models.voting import Voting

        data, label = self.fed, self.config.label
        found = [self.decode(it) for it in encoded]
        blank = np.zeros((data.size, data.size, data.channels), np.uint8)
        pixels = np.stack([blank if isinstance(it, Reason) else it for it in found])
        device = self.device(bool(label.gpus_per_actor))
        how = label.slice_rows, label.precision, device
        teacher = Teacher(self.teacher, data, *how, voting=Voting(views=views))
        said, reasons = teacher(pixels), [str(it) if isinstance(it, Reason) else None for it in found]
        called = "the teacher after two steps" if self._given is None else self._given.place
        sound.refuse(said[[reason is None for reason in reasons]], called, f"{len(encoded)} that were tried")
        return said, reasons

    def decode(self, encoded: bytes | None) -> "np.ndarray | Reason":
        """An image's pixels, uint8 (size, size, channels), as the teacher is fed, or why it cannot be read."""
        return Decode.of(self.fed)(encoded)

    @property
    def fed(self) -> Data:
        """How the teacher is fed, once its training has ended."""
        recipe = self.config.teacher
        if self._given is not None:
            return self._given.data
        assert isinstance(recipe, Training), "a network that is given in its place is there"
        return recipe.in_the_end(self.config.data)

    def device(self, wanted: bool) -> "torch.device":
        """The GPU where one is ``wanted`` and there, else the CPU."""
        import torch

        return torch.device("cuda" if wanted and torch.cuda.is_available() else "cpu")

    def memory(self, device: "torch.device") -> dict[str, int]:
        """The most memory so far, MB: the process's, and the GPU's on one."""
        import torch

        from ray_ns.models.memory import peak_mb

        mb = {"memory_mb": peak_mb()}
        if device.type == "cuda":
            mb["gpu_memory_mb"] = torch.cuda.max_memory_allocated(device) // 2**20
        return mb


def memory_in_words(figures: dict[str, Any]) -> str:
    """``1,234 MB so far, GPU 567 MB``."""
    gpu = f", GPU {figures['gpu_memory_mb']:,} MB" if "gpu_memory_mb" in figures else ""
    return f"{figures['memory_mb']:,} MB so far{gpu}"
