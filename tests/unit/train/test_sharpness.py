"""Sharpness-aware minimisation against closed forms, and what it leaves as it was."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ray_ns.config import Config, Student
from ray_ns.methods.objectives import objective_of
from ray_ns.train.data import Batch
from ray_ns.train.objective import Source
from ray_ns.train.sharpness import backward
from ray_ns.train.state import Net, TrainState
from ray_ns.train.step import NotFiniteError, Piece, Share, Step

CPU = torch.device("cpu")
RHO = 0.3
Made = Callable[..., tuple[Step, TrainState]]
# Without dropout, input noise and batch norm every image's gradient is its own.
STILL: dict[str, Any] = {
    "model": {"name": "resnet10t", "args": {"channels": [8, 8, 16, 16], "stem_width": 8, "norm_layer": "groupnorm1"}},
    "noise": {"augment": "none"},
}


@pytest.fixture
def batch() -> Batch:
    torch.manual_seed(3)
    images = torch.randint(0, 256, (12, 16, 16, 1), dtype=torch.uint8)
    return Batch(images, torch.softmax(torch.randn(12, 3), 1), (4, 8))


@pytest.fixture
def made(config: Config) -> Made:
    """A step and a fresh state of the student's recipe with some settings changed."""

    def step(sam: float, microbatch: int | None = None, **changes: object) -> tuple[Step, TrainState]:
        optimizer = {"name": "momentum", "lr": 0.1, "weight_decay": 0.0, "momentum": 0.0, "sam": sam}
        recipe = Student.model_validate({**config.student.model_dump(), "optimizer": optimizer, **changes})
        objective = objective_of(recipe, recipe.batch, True)
        state = TrainState.fresh(objective, config.data, 1, CPU)
        return Step(objective, config.data, 1, CPU, 0, microbatch), state

    return step


def gradients(state: TrainState) -> dict[str, Tensor]:
    return {name: it.grad.clone() for name, it in state.kept.network.named_parameters() if it.grad is not None}


def direction(state: TrainState) -> Tensor:
    whole = torch.cat([it.flatten() for it in gradients(state).values()])
    return whole / whole.norm()


def _share(batch: Batch, net: Net, microbatch: int | None, noised: Callable[..., Tensor]) -> Share:
    sources = [Source("labelled", count) for count in batch.counts]
    return Share(batch, sources, {"net": net}, microbatch, CPU, noised, (1,))


def linear(config: Config, batch: Batch, microbatch: int | None = None) -> tuple[Net, Share]:
    """A linear network of pixels in 0..1, and a step's images."""
    torch.manual_seed(1)
    net = Net(nn.Sequential(nn.Flatten(), nn.Linear(256, 3)).double(), config.student)
    return net, _share(batch, net, microbatch, lambda it, *_: it.permute(0, 3, 1, 2).double() / 255)


@pytest.mark.parametrize("curvature", [(1.0, 4.0), (0.5, 0.5)])
def test_on_a_quadratic_it_is_the_closed_form(config: Config, batch: Batch, curvature: tuple[float, float]) -> None:
    # L = w A w / 2: g = A w, and the gradient at w + rho g / |g| is A w + rho A A w / |A w|.
    layer = nn.Linear(2, 1, bias=False).double()
    weight = layer.weight
    weight.data.copy_(torch.tensor([[3.0, -2.0]]))
    net = Net(layer, config.student)
    share = _share(batch, net, None, lambda it, *_: it)
    a = torch.tensor(curvature, dtype=torch.float64)
    loss = backward(net, share, lambda piece: piece.part * (a * weight**2).sum() / 2, RHO)
    g = a * weight.detach()
    assert loss.item() == pytest.approx((a * weight.detach() ** 2).sum().item() / 2)
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, g + RHO * a * g / g.norm())
    assert weight.tolist() == [[3.0, -2.0]]


@pytest.mark.parametrize("microbatch", [None, 5, 1])
def test_on_a_linear_classifier_it_is_the_closed_form(config: Config, batch: Batch, microbatch: int | None) -> None:
    net, share = linear(config, batch, microbatch)
    layer = net.network[1]  # type: ignore[index]
    x = batch.images.flatten(1).double() / 255

    def by_hand(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Of the mean cross-entropy: (p - y)^T x / n."""
        wrong = torch.softmax(x @ weight.T + bias, 1) - batch.targets.double()
        return wrong.T @ x / len(x), wrong.mean(0)

    def loss_of(piece: Piece) -> Tensor:
        return piece.part * nn.functional.cross_entropy(net.network(piece.pixels), piece.targets.double())

    weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    g, b = by_hand(weight, bias)
    norm = math.sqrt(float((g**2).sum() + (b**2).sum()))
    wanted = by_hand(weight + RHO * g / norm, bias + RHO * b / norm)
    backward(net, share, loss_of, RHO)
    torch.testing.assert_close(layer.weight.grad, wanted[0])
    torch.testing.assert_close(layer.bias.grad, wanted[1])
    assert not torch.allclose(layer.weight.grad, g, rtol=1e-3)


def test_without_a_gradient_there_is_nowhere_to_climb(config: Config, batch: Batch) -> None:
    net, share = linear(config, batch)
    backward(net, share, lambda piece: 0 * net.network[1].weight.sum(), RHO)  # type: ignore[index]
    for weight in net.network.parameters():
        assert bool(weight.isfinite().all())
        assert weight.grad is None or not weight.grad.any()


def test_a_step_moves_the_weights_from_where_they_were(made: Made, batch: Batch) -> None:
    step, state = made(RHO, **STILL)
    before = {name: it.detach().clone() for name, it in state.kept.network.named_parameters()}
    state.kept.set_rate(0)
    rate = state.kept.optimizer.param_groups[0]["lr"]
    step(state, batch)
    found = gradients(state)
    for name, weight in state.kept.network.named_parameters():
        torch.testing.assert_close(weight, before[name] - rate * found[name], msg=name)
    plain, other = made(0.0, **STILL)
    plain(other, batch)
    assert any(not torch.allclose(found[name], it, rtol=1e-3) for name, it in gradients(other).items())


def test_the_second_pass_sees_the_same_draws(made: Made, batch: Batch) -> None:
    noised: list[Tensor] = []
    step, state = made(RHO, microbatch=6)
    state.kept.network.register_forward_pre_hook(lambda _, inputs: noised.append(inputs[0].clone()))
    step(state, batch)
    assert len(noised) == 4
    assert torch.equal(noised[0], noised[2])
    assert torch.equal(noised[1], noised[3])
    assert not torch.equal(noised[0], noised[1])
    small, near = made(1e-6)  # dropout, drop path and input noise are on: another draw is another gradient
    plain, other = made(0.0)
    assert small(near, batch) == plain(other, batch)
    wanted = direction(other)
    assert float(direction(near) @ wanted) > 0.999
    plain(other, batch)
    assert float(direction(other) @ wanted) < 0.99


def test_running_statistics_are_those_of_the_first_pass(made: Made, batch: Batch) -> None:
    step, state = made(RHO)
    plain, other = made(0.0)
    step(state, batch)
    plain(other, batch)
    buffers = dict(other.kept.network.named_buffers())
    assert any("running_mean" in name for name in buffers)
    for name, buffer in state.kept.network.named_buffers():
        assert torch.equal(buffer, buffers[name]), name


@pytest.mark.parametrize("at", [1, 2])
def test_what_is_not_finite_in_either_pass_leaves_the_weights(made: Made, batch: Batch, at: int) -> None:
    step, state = made(RHO, **STILL)
    before = {name: it.detach().clone() for name, it in state.kept.network.named_parameters()}
    passes: Iterator[int] = iter((1, 2))
    first = next(state.kept.network.parameters())
    first.register_hook(lambda it: torch.full_like(it, math.nan) if next(passes) == at else it)
    with pytest.raises(NotFiniteError, match="nothing was updated"):
        step(state, batch)
    assert all(torch.equal(before[name], it) for name, it in state.kept.network.named_parameters())
