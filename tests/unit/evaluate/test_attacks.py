"""Attacks on a linear network, where what they make of an image is known: in pixels, normalised and clipped."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ray_ns.config import Data
from ray_ns.evaluate.attacks import Attack
from ray_ns.models.predictor import Teacher

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.3, 0.1]


def linear(pixels: int, classes: int, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, classes))


@pytest.fixture
def images() -> np.ndarray:
    found = np.random.default_rng(0).integers(0, 256, (7, 4, 4, 3)).astype(np.uint8)
    found[0], found[1] = 0, 255  # where clipping matters
    return found


@pytest.fixture
def data() -> Data:
    fed = {"labelled": "l", "pool": "p", "classes": 2, "size": 8, "channels": 3, "mean": MEAN, "std": STD}
    return Data.model_validate(fed).model_copy(update={"size": 4})


def analytic(network: nn.Module, images: np.ndarray, truth: np.ndarray, epsilon: float) -> np.ndarray:
    """Of two classes: every pixel goes by epsilon to where the other class's weight is larger; probabilities."""
    weight, bias = network[1].weight.detach().numpy(), network[1].bias.detach().numpy()
    pixels = images.astype(np.float64).transpose(0, 3, 1, 2) / 255
    away = (weight[1 - truth] - weight[truth]).reshape(pixels.shape)
    changed = np.clip(pixels + epsilon * np.sign(away), 0, 1)
    mean, std = (np.array(it).reshape(1, 3, 1, 1) for it in (MEAN, STD))
    logits = ((changed - mean) / std).reshape(len(images), -1) @ weight.T + bias
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


@pytest.mark.parametrize("attack", [Attack(0.05), Attack(0.05, 10, 0.0125), Attack(0.05, 1, 0.05), Attack(1.0)])
def test_on_a_linear_network_it_is_the_analytic_one(images: np.ndarray, data: Data, attack: Attack) -> None:
    network, truth = linear(48, 2), np.array([0, 1, 0, 1, 1, 0, 1])
    teacher = Teacher(network, data, 4, "float32", torch.device("cpu"))
    wanted = analytic(network, images, truth, attack.epsilon)
    assert np.allclose(teacher.attacked(images, truth, attack), wanted, atol=1e-5)
    assert teacher.attacked(images[:0], truth[:0], attack).shape == (0, 2)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("attack", [Attack(0.1), Attack(0.1, 10, 0.025)])
@pytest.mark.parametrize("margin", [-60, -5, 5, 12, 17, 25, 33, 60, 150])
def test_a_network_that_is_very_sure_is_attacked_as_any_other(margin: float, attack: Attack, precision: str) -> None:
    """Right or wrong by so much: the direction that leads to the other class is that of the difference of weights."""
    torch.manual_seed(0)
    network, pixels, truth = nn.Linear(48, 2), torch.rand(50, 48) * 0.6 + 0.2, torch.zeros(50, dtype=torch.long)
    with torch.no_grad():
        network.weight.mul_(max(abs(margin), 5) / 3).add_(0.5)  # what both have in common must not show
        network.bias.zero_()
        said = network(pixels)
        network.bias[0] = margin - (said[:, 0] - said[:, 1]).mean()

    def logits(pixels: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            return network(pixels)

    weight = network.weight.detach().to(getattr(torch, precision)).float()
    made = attack(logits, pixels, truth)
    assert made.dtype == torch.float32
    assert torch.allclose(made, (pixels + 0.1 * (weight[1] - weight[0]).sign()).clamp(0, 1), atol=1e-6)


def by_differences(network: nn.Module, images: np.ndarray, truth: np.ndarray, attack: Attack) -> np.ndarray:
    """The attacked pixels of one image after the other, by finite differences of the loss: no gradient of PyTorch's."""
    mean, std = (torch.tensor(it, dtype=torch.float64).view(1, 3, 1, 1) for it in (MEAN, STD))
    found = []
    for image, label in zip(images.astype(np.float64).transpose(0, 3, 1, 2) / 255, truth, strict=True):
        start = now = torch.from_numpy(image.copy())
        for _ in range(attack.steps):
            nudge = 1e-5 * torch.eye(now.numel(), dtype=torch.float64).view(-1, *now.shape)
            with torch.no_grad():
                logits = [network((it - mean) / std) for it in (now + nudge, now - nudge)]
            up, down = (it.logsumexp(1) - it[:, label] for it in logits)
            now = now + (attack.step or attack.epsilon) * torch.sign(up - down).view(now.shape)
            now = torch.minimum(torch.maximum(now, start - attack.epsilon), start + attack.epsilon).clamp(0, 1)
        found.append(now.numpy())
    return np.stack(found)


@pytest.mark.parametrize("attack", [Attack(0.03), Attack(0.03, 4, 0.02)])
def test_on_a_network_that_is_not_linear_it_follows_the_loss(images: np.ndarray, data: Data, attack: Attack) -> None:
    torch.manual_seed(1)
    network = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Tanh(), nn.Flatten(), nn.Linear(24, 5))
    truth = np.array([0, 1, 2, 3, 4, 0, 1])
    wanted = by_differences(copy.deepcopy(network).double(), images, truth, attack)
    teacher = Teacher(network, data, 4, "float32", torch.device("cpu"))
    made: list[torch.Tensor] = []

    def noted(logits: Any, pixels: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        made.append(attack(logits, pixels, classes))
        return made[-1]

    teacher.attacked(images, truth, noted)
    assert np.allclose(torch.cat(made)[:7].numpy(), wanted, atol=1e-6)


def test_no_pixel_goes_further_than_epsilon_or_leaves_its_range() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 5))
    pixels, truth = torch.rand(6, 3, 4, 4), torch.arange(6) % 5
    for attack in (Attack(0.1), Attack(0.1, 10, 0.025)):
        changed = attack(network, pixels, truth)
        assert (changed - pixels).abs().max() <= 0.1 + 1e-6
        assert 0 <= changed.min() <= changed.max() <= 1
        before, after = (nn.functional.cross_entropy(network(at), truth) for at in (pixels, changed))
        assert after > before


def test_an_image_is_attacked_alike_whatever_is_beside_it_and_the_network_learns_nothing(
    images: np.ndarray, data: Data
) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
    before = {name: it.clone() for name, it in network.state_dict().items()}
    teacher = Teacher(network, data, 4, "float32", torch.device("cpu"))
    truth = np.array([0, 1, 0, 1, 1, 0, 1])
    whole = teacher.attacked(images, truth, Attack(0.1))
    alone = np.concatenate([teacher.attacked(images[[at]], truth[[at]], Attack(0.1)) for at in range(7)])
    assert np.allclose(whole, alone, atol=1e-6)
    assert all(torch.equal(it, before[name]) for name, it in network.state_dict().items())
    assert all(it.grad is None for it in network.parameters())
