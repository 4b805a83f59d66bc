import copy
from collections.abc import Callable
from typing import Literal

import pytest
import torch
from torch import nn

from ray_ns.models.ema import averaged


def test_no_decay_is_no_average() -> None:
    assert averaged(nn.Linear(2, 2), None, "tensorflow") is None


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.9999])
@pytest.mark.parametrize(
    ("warmup", "least"),
    [
        ("tensorflow", lambda step: (1 + step) / (10 + step)),
        ("timm", lambda step: 1 - step ** (-2 / 3)),  # 0 at the first step: the average begins with its weights
    ],
)
def test_the_average_follows_the_formula_with_warm_up(
    decay: float, warmup: Literal["tensorflow", "timm"], least: Callable[[int], float]
) -> None:
    torch.manual_seed(0)
    network = nn.Linear(3, 2)
    average = averaged(network, decay, warmup)
    assert average is not None
    expected = copy.deepcopy(network.weight.detach().double())
    for step in range(1, 30):
        with torch.no_grad():
            network.weight.add_(torch.randn(2, 3))
        average.update(network, step)
        now = min(decay, least(step))
        expected = now * expected + (1 - now) * network.weight.detach().double()
        torch.testing.assert_close(average.module.weight.detach().double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("warmup", "steps"), [("tensorflow", 89_990), ("timm", 1_000_001)])
def test_the_decay_of_the_paper_is_reached_after_so_many_updates(
    warmup: Literal["tensorflow", "timm"], steps: int
) -> None:
    average = averaged(nn.Linear(2, 2), 0.9999, warmup)
    assert average is not None
    assert average.get_decay(steps - 100) < 0.9999 - 1e-9
    assert average.get_decay(steps) == pytest.approx(0.9999, abs=1e-12)


def test_the_average_holds_the_running_figures_of_norms_too() -> None:
    network = nn.BatchNorm1d(2)
    average = averaged(network, 0.9, "timm")
    assert average is not None
    network(torch.full((4, 2), 5.0) + torch.randn(4, 2))
    average.update(network, 1)
    torch.testing.assert_close(average.module.running_mean, network.running_mean)
    assert average.module.num_batches_tracked == 1


def test_the_average_is_apart_from_the_network() -> None:
    network = nn.Linear(2, 2)
    average = averaged(network, 0.9, "timm")
    assert average is not None
    before = average.module.weight.clone()
    with torch.no_grad():
        network.weight.add_(1)
    assert torch.equal(average.module.weight, before)
    assert not average.module.training
