"""Noisy Student's loss: true labels and a teacher's labels in one cross-entropy (Xie et al. 2020, algorithm 1)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from ray_ns.config import Student, Training
from ray_ns.methods.objectives.supervised import cross_entropy
from ray_ns.train.objective import Agree, Source
from ray_ns.train.state import TrainState
from ray_ns.train.step import Share


@dataclass(frozen=True)
class NoisyStudent:
    """One network learns from the recipe's batch of labelled images and ``ratio`` times as many selected ones.

    Where the recipe is not ``joint``, all of them are selected ones: the paper's pretraining, before a fine-tuning.
    ``weight``: of the loss.
    """

    recipe: Student
    weight: float = 1.0
    keeps: ClassVar[str] = "student"

    def networks(self) -> Mapping[str, Training]:
        return {self.keeps: self.recipe}

    def sources(self) -> tuple[Source, ...]:
        batch, ratio, views = self.recipe.batch, self.recipe.ratio, (self.recipe.pseudo_noise.input,)
        if not self.recipe.joint:
            return (Source("selection", batch * (1 + ratio), views),)
        return Source("labelled", batch), Source("selection", batch * ratio, views)

    def step(self, state: TrainState, share: Share, agree: Agree) -> float:
        return agree(cross_entropy(state.kept, share, self.recipe, self.weight), state.kept)["loss"]
