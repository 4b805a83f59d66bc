import math

import pytest
from torch import nn

from ray_ns.config import Training
from ray_ns.errors import InputError
from ray_ns.train.optim import optimizer, schedule

STEPS, WARMUP, PEAK = 20, 5, 0.4


@pytest.fixture
def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))


def settings(**changes: object) -> Training:
    optimizer = {"lr": PEAK, "warmup_steps": WARMUP, **changes}
    return Training.model_validate({"model": {"name": "-"}, "steps": STEPS, "batch": 512, "optimizer": optimizer})


def rates(network: nn.Module, using: Training, at: list[int], steps: int = STEPS) -> list[float]:
    made = optimizer(network, using)
    rate = schedule(made, using.model_copy(update={"steps": steps}))
    found = []
    for step in at:
        rate.step_update(step)
        (now,) = {group["lr"] for group in made.param_groups}
        found.append(now)
    return found


@pytest.mark.parametrize("shape", ["cosine", "constant"])
def test_warm_up_is_linear_from_zero(network: nn.Module, shape: str) -> None:
    found = rates(network, settings(schedule=shape), list(range(WARMUP)))
    assert found == pytest.approx([PEAK * step / WARMUP for step in range(WARMUP)])


def test_after_the_warm_up_cosine_falls_to_zero(network: nn.Module) -> None:
    found = rates(network, settings(), list(range(WARMUP, STEPS + 1)))
    left = STEPS - WARMUP
    expected = [PEAK / 2 * (1 + math.cos(math.pi * step / left)) for step in range(left + 1)]
    assert found == pytest.approx(expected, abs=1e-9)
    assert found[-1] == pytest.approx(0, abs=1e-9)
    assert found == sorted(found, reverse=True)


def test_the_staircase_counts_from_step_0(network: nn.Module) -> None:
    stairs = settings(schedule="step", decay_steps=4, decay_rate=0.5)
    assert rates(network, stairs, list(range(WARMUP))) == pytest.approx([PEAK * step / WARMUP for step in range(5)])
    found = rates(network, stairs, list(range(WARMUP, STEPS)))
    assert found == pytest.approx([PEAK * 0.5 ** (step // 4) for step in range(WARMUP, STEPS)])


def test_the_papers_rate_is_scaled_with_the_labelled_batch(network: nn.Module) -> None:
    paper = settings(lr=0.016, lr_batch=256, warmup_steps=0)
    assert rates(network, paper, [0]) == pytest.approx([0.032])
    assert rates(network, paper.model_copy(update={"batch": 2048}), [0]) == pytest.approx([0.128])


def test_epsilon_reaches_the_optimizer_and_is_its_own_else(network: nn.Module) -> None:
    assert optimizer(network, settings(name="rmsproptf", eps=1e-3)).param_groups[0]["eps"] == 1e-3
    own = optimizer(network, settings(name="rmsproptf")).param_groups[0]
    assert (own["eps"], own["alpha"], own["momentum"]) == (1e-10, 0.9, 0.9)


def test_an_optimizer_without_epsilon_refuses_it(network: nn.Module) -> None:
    with pytest.raises(InputError, match=r"optimizer\.eps = 0\.001: sgd has no epsilon"):
        optimizer(network, settings(name="sgd", eps=1e-3))


def test_what_is_frozen_is_not_optimized(network: nn.Module) -> None:
    network[0].requires_grad_(False)
    held = {id(it) for group in optimizer(network, settings()).param_groups for it in group["params"]}
    assert held == {id(it) for it in network[1:].parameters()}


def test_after_the_warm_up_constant_is_flat(network: nn.Module) -> None:
    assert rates(network, settings(schedule="constant"), list(range(WARMUP, STEPS))) == [PEAK] * (STEPS - WARMUP)


@pytest.mark.parametrize("shape", ["cosine", "constant"])
def test_without_warm_up_the_first_rate_is_the_peak(network: nn.Module, shape: str) -> None:
    assert rates(network, settings(schedule=shape, warmup_steps=0), [0]) == [PEAK]


def test_a_warm_up_longer_than_the_training_is_cut(network: nn.Module) -> None:
    found = rates(network, settings(warmup_steps=100), list(range(4)), steps=4)
    assert found == pytest.approx([0, PEAK / 4, PEAK / 2, 3 * PEAK / 4])


@pytest.mark.parametrize("shape", ["cosine", "constant"])
def test_the_rate_of_a_step_does_not_depend_on_what_was_asked_before(network: nn.Module, shape: str) -> None:
    walked = rates(network, settings(schedule=shape), list(range(STEPS)))
    assert [rates(network, settings(schedule=shape), [step])[0] for step in range(STEPS)] == walked
    assert rates(network, settings(schedule=shape), list(reversed(range(STEPS)))) == walked[::-1]


@pytest.mark.parametrize("name", ["sgd", "adamw", "rmsproptf", "lamb"])
def test_weight_decay_is_only_on_weights_of_two_dimensions_or_more(network: nn.Module, name: str) -> None:
    made = optimizer(network, settings(name=name, weight_decay=0.01))
    decayed = {id(weight): group["weight_decay"] for group in made.param_groups for weight in group["params"]}
    assert len(decayed) == len(list(network.parameters()))
    for key, weight in network.named_parameters():
        assert decayed[id(weight)] == (0.01 if weight.ndim >= 2 else 0), key


def test_sgd_has_its_momentum_and_is_nesterovs(network: nn.Module) -> None:
    group = optimizer(network, settings(momentum=0.8)).param_groups[0]
    assert (group["momentum"], group["nesterov"]) == (0.8, True)


def test_no_momentum_is_taken_or_refused_by_name(network: nn.Module) -> None:
    # The config allows it, torch's Nesterov momentum does not.
    try:
        made = optimizer(network, settings(momentum=0.0))
    except InputError as error:
        assert "optimizer.momentum" in str(error)  # noqa: PT017
    else:
        assert {group["momentum"] for group in made.param_groups} == {0.0}


def test_an_unknown_optimizer_is_refused_by_name(network: nn.Module) -> None:
    with pytest.raises(InputError, match=r"optimizer\.name.*'?nosuch"):
        optimizer(network, settings(name="nosuch"))
