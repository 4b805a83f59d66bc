"""The training loop: batches in their order, steps, scores, checkpoints, progress."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from ray_ns import measures
from ray_ns.config import Data
from ray_ns.errors import ResumableError
from ray_ns.train.data import Batch, Steps, batches
from ray_ns.train.objective import Objective
from ray_ns.train.state import TrainState
from ray_ns.train.step import Step


class LeavingError(ResumableError):
    """A worker is to leave. Raised by all of them, after the same step."""


@dataclass(frozen=True)
class Worker:
    """Which worker this is, what it computes on, the key of all its draws. ``microbatch``, ``told``: see ``Step``."""

    device: torch.device
    key: int
    rank: int = 0
    loaders: int = 0
    microbatch: int | None = None
    told: Callable[[], bool] = lambda: False


def fit(
    objective: Objective,
    data: Data,
    steps: Steps,
    state: TrainState,
    worker: Worker,
    after_step: Callable[[TrainState, float], None],
    score: Callable[[nn.Module], float] | None = None,
) -> None:
    """Train ``state`` from where it stands to the last step of the objective's recipe, or to where its patience ends.

    ``after_step`` is called with the state and the loss after every step. ``score`` gives a network's top-1 on
    validation images, the same to all workers; it is asked every ``recipe.eval_steps`` steps and after the last one,
    before ``after_step``: what that saves knows the score, and whoever goes on from it decides the same. Raises
    ``LeavingError`` after a step before which a worker was told to leave.
    """
    recipe = objective.recipe
    if state.finished(recipe):
        return
    step = Step(objective, data, worker.key, worker.device, worker.rank, worker.microbatch, worker.told)
    ready = time.perf_counter()
    for batch in batches(steps, state.step, recipe.steps, worker.loaders):
        began = time.perf_counter()
        for net in state.nets.values():
            net.set_rate(state.step)
        loss = step(state, batch)
        _measure(batch, began - ready, time.perf_counter() - began)
        due = recipe.eval_steps and (state.step % recipe.eval_steps == 0 or state.step == recipe.steps)
        if score is not None and due:
            state.score(score(state.result), keep=recipe.patience is not None)
        after_step(state, loss)
        if state.finished(recipe):
            return
        if step.leaving:
            raise LeavingError(f"a worker was told to leave at step {state.step}. The same command goes on from there.")
        ready = time.perf_counter()


def _measure(batch: Batch, waited: float, stepped: float) -> None:
    """Count a step of this worker. ``waited``: seconds for its batch; ``stepped``: of the step itself."""
    measures.count("ns_input_wait_seconds", waited)
    measures.timed("ns_step_seconds", stepped)
    measures.count("ns_train_images", batch.entries)
    measures.count("ns_bytes_read", batch.bytes_read)
