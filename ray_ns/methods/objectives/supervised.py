"""Cross-entropy against true labels: a teacher, a control, a fine-tuning."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ray_ns.config import Student, Training
from ray_ns.models.loss import noisy_student_loss
from ray_ns.models.spared import spared
from ray_ns.train.objective import Agree, Source
from ray_ns.train.sharpness import backward
from ray_ns.train.state import Net, TrainState
from ray_ns.train.step import Piece, Share


@dataclass(frozen=True)
class Supervised:
    """One network learns from ``batch`` labelled images per step. ``weight``: of its loss."""

    recipe: Training
    batch: int
    weight: float = 1.0
    keeps: ClassVar[str] = "network"

    def networks(self) -> Mapping[str, Training]:
        return {self.keeps: self.recipe}

    def sources(self) -> tuple[Source, ...]:
        return (Source("labelled", self.batch),)

    def step(self, state: TrainState, share: Share, agree: Agree) -> float:
        return agree(cross_entropy(state.kept, share, self.recipe, self.weight), state.kept)["loss"]


def cross_entropy(net: Net, share: Share, recipe: Training, weight: float = 1.0) -> Tensor:
    """The recipe's loss of ``net`` on the ``share``, times ``weight``, gone back through as its optimiser says."""
    kind = recipe.loss if isinstance(recipe, Student) and recipe.joint else "mean"

    def loss_of(piece: Piece) -> Tensor:
        with _as_noised(net, piece, recipe):
            logits = net(piece.pixels)
        loss = noisy_student_loss(logits, piece.targets, share.counts[0], kind)
        if kind == "mean":  # of these images alone; the sum is already divided by the share's labelled images
            loss = loss * piece.part
        return loss if weight == 1 else loss * weight

    return backward(net, share, loss_of, recipe.optimizer.sam)


def _as_noised(net: Net, piece: Piece, recipe: Training) -> AbstractContextManager[None]:
    """Where pseudo-labelled images are spared the noise of the network that the recipe takes from them."""
    if not isinstance(recipe, Student) or (recipe.pseudo_noise.dropout and recipe.pseudo_noise.drop_path):
        return nullcontext()
    noise = recipe.pseudo_noise
    return spared(net.network, piece.pseudo, dropout=not noise.dropout, drop_path=not noise.drop_path)
