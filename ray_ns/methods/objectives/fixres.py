"""FixRes: a trained network is corrected at the size of the test images (Touvron et al. 2019)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from ray_ns.config import Fixing, Training
from ray_ns.methods.objectives.supervised import cross_entropy
from ray_ns.models import fixres
from ray_ns.models.loss import noisy_student_loss
from ray_ns.train.objective import Agree, Source
from ray_ns.train.state import TrainState
from ray_ns.train.step import Share


@dataclass(frozen=True)
class Fix:
    """One network sees ``batch`` labelled images per step, as in an evaluation but for what its variant adapts."""

    recipe: Fixing
    batch: int
    keeps: ClassVar[str] = "network"

    def networks(self) -> Mapping[str, Training]:
        return {self.keeps: self.recipe}

    def sources(self) -> tuple[Source, ...]:
        return (Source("labelled", self.batch),)

    def step(self, state: TrainState, share: Share, agree: Agree) -> float:
        net = state.kept
        fixres.begin(net.network, self.recipe.variant)
        if self.recipe.variant != "statistics":
            return agree(cross_entropy(net, share, self.recipe), net)["loss"]
        with torch.no_grad():  # the norms see the images; nothing is updated, and the loss is told
            losses = [
                noisy_student_loss(net(piece.pixels), piece.targets, share.counts[0], "mean") * piece.part
                for piece in share
            ]
        return agree(torch.stack(losses).sum())["loss"]
