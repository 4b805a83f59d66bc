import math
from collections.abc import Callable

import pytest
import torch

from ray_ns.config import Config, Student, Training
from ray_ns.errors import ResumableError
from ray_ns.train.data import Batch
from ray_ns.train.state import TrainState
from ray_ns.train.step import Step

CPU = torch.device("cpu")
Made = Callable[..., tuple[Step, TrainState]]


@pytest.fixture
def made(config: Config) -> Made:
    """A step and a fresh state of the student's recipe with some settings changed."""

    def step(rank: int = 0, recipe: Training | None = None, **changes: object) -> tuple[Step, TrainState]:
        recipe = recipe or Student.model_validate({**config.student.model_dump(), **changes})
        state = TrainState.fresh(recipe, config.data, 1, CPU)
        return Step(recipe, config.data, 1, state.network, CPU, rank), state

    return step


@pytest.fixture
def batch() -> Batch:
    torch.manual_seed(3)
    images = torch.randint(0, 256, (12, 16, 16, 1), dtype=torch.uint8)
    return Batch(images, torch.softmax(torch.randn(12, 3), 1), 4)


def poisoned(batch: Batch, value: float) -> Batch:
    targets = batch.targets.clone()
    targets[2, 1] = value
    return Batch(batch.images, targets, batch.labelled)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_before_the_update(made: Made, batch: Batch, value: float) -> None:
    step, state = made()
    for _ in range(2):
        step(state, batch)
    before = {name: tensor.clone() for name, tensor in state.tensors().items()}
    with pytest.raises(ResumableError, match=r"loss of worker 0 is not finite at step 2; nothing was updated"):
        step(state, poisoned(batch, value))
    after = state.tensors()
    assert state.step == 2
    weights = dict(state.network.named_parameters())
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert not [name for name in changed if name.removeprefix("network/") in weights], changed
    assert not [name for name in changed if not name.startswith("network/")], changed


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_stops_before_the_update(made: Made, batch: Batch, value: float) -> None:
    step, state = made()
    step(state, batch)
    before = {name: weight.detach().clone() for name, weight in state.network.named_parameters()}
    first = next(state.network.parameters())
    first.register_hook(lambda gradient: torch.full_like(gradient, value))
    with pytest.raises(ResumableError, match="step 1"):
        step(state, batch)
    assert state.step == 1
    assert all(torch.equal(before[name], weight) for name, weight in state.network.named_parameters())


def test_a_step_draws_only_from_its_key_step_and_rank(made: Made, batch: Batch) -> None:
    results = []
    for noise_before in (11, 12):
        step, state = made()
        torch.manual_seed(noise_before)
        results.append((step(state, batch), step(state, batch), state.tensors()))
    assert results[0][:2] == results[1][:2]
    assert all(torch.equal(results[0][2][name], tensor) for name, tensor in results[1][2].items())
    other, state = made(rank=1)
    assert other(state, batch) != results[0][0]


def test_every_step_is_noised_anew(made: Made, batch: Batch) -> None:
    step, state = made(optimizer={"lr": 1e-12})
    losses = [step(state, batch) for _ in range(4)]
    assert len(set(losses)) == 4
    assert state.step == 4


def test_without_noise_every_step_sees_the_same(made: Made, batch: Batch, config: Config) -> None:
    model = {**config.student.model.model_dump(), "dropout": 0.0, "drop_path": 0.0}
    step, state = made(model=model, noise={"augment": "none"}, optimizer={"lr": 1e-12})
    assert step(state, batch) == pytest.approx(step(state, batch), abs=1e-6)


def test_the_loss_is_normalised_as_the_recipe_says(made: Made, batch: Batch, config: Config) -> None:
    losses = {}
    for kind in ("mean", "sum"):
        step, state = made(loss=kind)
        losses[kind] = step(state, batch)
    assert losses["sum"] == pytest.approx(3 * losses["mean"], rel=1e-5)
    step, state = made(recipe=Training.model_validate(config.teacher.model_dump()))
    assert step(state, batch) == pytest.approx(losses["mean"], rel=1e-5)


@pytest.mark.parametrize("ema", [None, 0.9])
def test_weights_and_average_move(made: Made, batch: Batch, ema: float | None) -> None:
    step, state = made(ema_decay=ema)
    before = {name: weight.detach().clone() for name, weight in state.result.named_parameters()}
    step(state, batch)
    step(state, batch)
    moved = [not torch.equal(before[name], weight) for name, weight in state.result.named_parameters()]
    assert all(moved)
    assert (state.ema is None) == (ema is None)


def test_precision_is_the_recipes(made: Made, batch: Batch) -> None:
    losses = []
    for precision in ("float32", "bfloat16"):
        step, state = made(precision=precision)
        losses.append(step(state, batch))
        assert {weight.dtype for weight in state.network.parameters()} == {torch.float32}
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
