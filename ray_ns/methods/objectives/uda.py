"""UDA: a network agrees with itself on two views of an image (Xie et al. 2020, Unsupervised Data Augmentation).

The target is what it says of the plain view, made surer by a temperature, without gradient; where its top probability
is below the threshold it teaches nothing. Labelled images and both views go through the network together, as in the
released code of Meta Pseudo Labels: batch norm sees all of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ray_ns.config import Training, TwoViewStudent, Uda, UdaStudent
from ray_ns.methods.feedback import consistency, ramp
from ray_ns.models.loss import noisy_student_loss
from ray_ns.train.objective import Agree, Source
from ray_ns.train.state import TrainState
from ray_ns.train.step import Share

TWO_VIEWS = (False, True)  # plain, then noised


@dataclass(frozen=True)
class Consistent:
    """One network learns from labelled images, and ``ratio`` times as many images of the pool without their labels."""

    recipe: UdaStudent
    keeps: ClassVar[str] = "student"

    def networks(self) -> Mapping[str, Training]:
        return {self.keeps: self.recipe}

    def sources(self) -> tuple[Source, ...]:
        return labelled_and_two_views(self.recipe)

    def step(self, state: TrainState, share: Share, agree: Agree) -> float:
        piece = share.whole()
        labelled, plain, noised = state.kept(piece.pixels).split(share.counts)
        targets, readable, _ = piece.targets.split(share.counts)
        loss = noisy_student_loss(labelled, targets, len(targets), "mean")
        loss = loss + disagreement(plain, noised, readable, self.recipe.uda, state.step)
        loss.backward()
        return agree(loss.detach(), state.kept)["loss"]


def labelled_and_two_views(recipe: TwoViewStudent) -> tuple[Source, ...]:
    """The images of a step: the recipe's batch, and ``ratio`` times as many of the pool, each plain and noised."""
    return Source("labelled", recipe.batch), Source("selection", recipe.batch * recipe.ratio, TWO_VIEWS)


def disagreement(plain: Tensor, noised: Tensor, targets: Tensor, uda: Uda, step: int) -> Tensor:
    """UDA's loss: the mean over all images of the two views' logits (n, classes); 0 for those that cannot be read.

    ``targets`` (n, classes) are zeros for those.
    """
    each = consistency(plain, noised, uda.temperature, uda.threshold)
    return uda.weight * ramp(step, uda.ramp_steps) * torch.where(targets.any(1), each, 0).mean()
