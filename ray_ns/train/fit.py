"""The training loop: batches in their order, steps, checkpoints, progress."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from ray_ns.config import Data, Training
from ray_ns.train.data import Steps, batches
from ray_ns.train.optim import schedule
from ray_ns.train.state import TrainState
from ray_ns.train.step import Step


@dataclass(frozen=True)
class Worker:
    """Which worker this is, what it computes on, and the key of all its draws. ``microbatch``: see ``Step``."""

    device: torch.device
    key: int
    rank: int = 0
    loaders: int = 0
    microbatch: int | None = None


def fit(
    recipe: Training,
    data: Data,
    steps: Steps,
    state: TrainState,
    worker: Worker,
    network: nn.Module,
    after_step: Callable[[TrainState, float], None],
) -> None:
    """Train ``state`` from where it stands to the recipe's last step.

    ``network``: the state's network, or that one wrapped for several workers. ``after_step`` is called with the state
    and the loss after every step.
    """
    step = Step(recipe, data, worker.key, network, worker.device, worker.rank, worker.microbatch)
    rate = schedule(state.optimizer, recipe)
    for batch in batches(steps, state.step, recipe.steps, worker.loaders):
        rate.step_update(state.step)
        after_step(state, step(state, batch))
