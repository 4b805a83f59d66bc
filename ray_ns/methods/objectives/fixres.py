"""FixRes: a trained network is corrected at the size of the test images (Touvron et al. 2019)."""

from dataclasses import dataclass

import torch

from ray_ns.config import Fixing
from ray_ns.methods.objectives.supervised import Supervised, cross_entropy
from ray_ns.models import fixres
from ray_ns.models.loss import noisy_student_loss
from ray_ns.train.objective import Agree
from ray_ns.train.state import TrainState
from ray_ns.train.step import Share


@dataclass(frozen=True)
class Fix(Supervised):
    """One network sees ``batch`` labelled images per step, as in an evaluation but for what its variant adapts."""

    recipe: Fixing

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
