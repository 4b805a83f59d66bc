import copy

import numpy as np
import pytest
import torch
from torch import nn

from ray_ns.config import Config, Data, Views
from ray_ns.models.predictor import Teacher
from ray_ns.models.voting import COUNTS, Voting
from ray_ns.models.zoo import build

CPU = torch.device("cpu")
BATCH = 8
PRECISIONS = pytest.mark.parametrize("precision", ["float32", "bfloat16"])


@pytest.fixture
def network(config: Config) -> nn.Module:
    torch.manual_seed(0)
    return build(config.teacher.model, config.data)


@pytest.fixture
def images(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (BATCH, 16, 16, 1), dtype=np.uint8)


@PRECISIONS
def test_the_same_images_give_the_same_bits_whatever_the_tail(
    network: nn.Module, data: Data, images: np.ndarray, precision: str
) -> None:
    teacher = Teacher(network, data, BATCH, precision, CPU)
    whole = teacher(images)
    for count in range(1, BATCH + 1):
        np.testing.assert_array_equal(teacher(images[:count]), whole[:count], err_msg=f"{count} images")
        torch.manual_seed(count)  # nothing is drawn


@PRECISIONS
def test_probabilities_are_float32_and_sum_to_one(
    network: nn.Module, data: Data, images: np.ndarray, precision: str
) -> None:
    probabilities = Teacher(network, data, BATCH, precision, CPU)(images)
    assert probabilities.shape == (BATCH, data.classes)
    assert probabilities.dtype == np.float32
    assert (probabilities >= 0).all()
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-6)


def test_precision_is_the_one_asked_for(network: nn.Module, data: Data, images: np.ndarray) -> None:
    full = Teacher(network, data, BATCH, "float32", CPU)(images)
    half = Teacher(network, data, BATCH, "bfloat16", CPU)(images)
    assert not np.array_equal(full, half)
    np.testing.assert_allclose(half, full, atol=0.05)


def test_logits_are_divided_by_the_temperature(network: nn.Module, data: Data, images: np.ndarray) -> None:
    teacher = Teacher(network, data, BATCH, "float32", CPU, voting=Voting(2.5))
    logits = torch.from_numpy(teacher.logits(images))
    np.testing.assert_allclose(teacher(images), torch.softmax(logits / 2.5, 1).numpy(), atol=1e-6)
    plain = Teacher(network, data, BATCH, "float32", CPU)
    np.testing.assert_array_equal(plain.logits(images), logits.numpy())
    np.testing.assert_array_equal(plain(images), torch.softmax(logits, 1).numpy())
    assert plain.logits(images[:0]).shape == (0, data.classes)


@pytest.mark.parametrize(("views", "of"), [("flip", 2), ("five_crops", 5), ("ten_crops", 10)])
def test_probabilities_are_the_mean_over_the_views(
    network: nn.Module, data: Data, images: np.ndarray, views: Views, of: int
) -> None:
    teacher = Teacher(network, data, BATCH, "float32", CPU, voting=Voting(2.0, views))
    pixels = (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - data.mean[0]) / data.std[0]
    corners = [pixels[:, :, top : top + 14, left : left + 14] for top in (0, 2) for left in (0, 2)]
    grown = [nn.functional.interpolate(it, (16, 16), mode="bilinear") for it in corners]
    shown = [pixels] if views == "flip" else [pixels, *grown]
    shown += [torch.flip(it, [3]) for it in shown] if views != "five_crops" else []
    assert len(shown) == of == COUNTS[views]
    with torch.no_grad():
        wanted = torch.stack([torch.softmax(network.eval()(it) / 2, 1) for it in shown]).mean(0)
    np.testing.assert_allclose(teacher(images), wanted.numpy(), atol=2e-6)
    np.testing.assert_array_equal(teacher(images[:3]), teacher(images)[:3])
    assert not np.allclose(teacher(images), Teacher(network, data, BATCH, "float32", CPU, voting=Voting(2.0))(images))


def test_pixels_are_normalised_and_the_network_is_not_noised(
    network: nn.Module, data: Data, images: np.ndarray
) -> None:
    plain = copy.deepcopy(network).eval()
    teacher = Teacher(network.train(), data, BATCH, "float32", CPU)
    pixels = (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - data.mean[0]) / data.std[0]
    with torch.inference_mode():
        expected = torch.softmax(plain(pixels), 1).numpy()
    np.testing.assert_allclose(teacher(images), expected, atol=1e-5)


def test_channels_are_normalised_each_by_its_own(data: Data) -> None:
    class Mean(nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return pixels.mean((2, 3))

    colours = data.model_copy(update={"channels": 3, "mean": [0.0, 0.5, 1.0], "std": [1.0, 0.5, 0.25]})
    white = np.full((1, colours.size, colours.size, 3), 255, np.uint8)
    logits = torch.tensor([[1.0, 1.0, 0.0]])
    found = Teacher(Mean(), colours, 2, "float32", CPU)(white)
    np.testing.assert_allclose(found, torch.softmax(logits, 1).numpy(), atol=1e-6)
