"""The images that a training learns from, with their targets: labelled ones, and selected ones of the pool."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ray_ns.config import Data, Student, Training
from ray_ns.corpora.corpus import Corpus, image_ids
from ray_ns.images.augment import per_image
from ray_ns.images.decode import Decode
from ray_ns.models.loss import sharpen, smooth
from ray_ns.train.data import Images, Steps, View
from ray_ns.train.objective import Source
from ray_ns.train.selected import Selected
from ray_ns.train.visits import visits_of


@dataclass(frozen=True)
class Sources:
    """The images of one training, which ``data`` says how to read.

    ``selected``: what a student learns from; None: labelled images alone.
    """

    recipe: Training
    data: Data
    corpora: Mapping[str, Corpus]
    selected: Selected | None = None

    def steps(self, sources: Sequence[Source], key: int, rank: int, world: int) -> Steps:
        """The batches of one worker."""
        images = {"labelled": self.labelled, "selection": self.pseudo_labelled}
        augment = per_image(self.recipe.noise, self.data.size)
        return Steps([(images[it.images](it.views), it.per_step) for it in sources], key, rank, world, augment)

    def labelled(self, views: Sequence[bool] = (True,)) -> Images:
        """The labelled images with smoothed one-hot targets; ``views``: of each of them, noised or not."""
        corpus, data = self.corpora["labelled"], self.data
        per_shard = corpus.labels(data.classes)
        truth = np.concatenate(per_shard)
        shards = zip(corpus.shards, per_shard, strict=True)
        ids = np.concatenate([image_ids(shard.ordinal, np.arange(len(part))) for shard, part in shards])

        def targets(rows: np.ndarray) -> np.ndarray:
            return smooth(torch.from_numpy(truth[rows]), data.classes, self.recipe.label_smoothing).numpy()

        visits = visits_of(corpus, ids, np.ones(len(ids), np.int32))
        return Images(corpus, visits, self._views(views), targets, data.max_quarantined)

    def pseudo_labelled(self, views: Sequence[bool]) -> Images:
        """The selected images of the pool with the teacher's labels, soft or hard; ``views``: as of labelled ones."""
        assert isinstance(self.recipe, Student)
        assert self.selected is not None
        recipe, data, selected = self.recipe, self.data, self.selected

        def targets(rows: np.ndarray) -> np.ndarray:
            if recipe.targets == "hard":
                hard = torch.from_numpy(selected.labels[rows].astype(np.int64))
                return smooth(hard, data.classes, recipe.label_smoothing).numpy()
            return sharpen(torch.from_numpy(selected.soft(rows, data.classes)), recipe.temperature).numpy()

        corpus = self.corpora["pool"]
        visits = visits_of(corpus, selected.ids, selected.copies)
        return Images(corpus, visits, self._views(views), targets, data.max_quarantined)

    def _views(self, noised: Sequence[bool]) -> list[View]:
        """How images are read: where a random crop follows, whole."""
        plain = Decode.of(self.data)
        cropped = self.recipe.noise.crop == "random_resized"
        whole = Decode(self.data.size, self.data.channels, "none") if cropped else plain
        return [View(whole if one else plain, one) for one in noised]
