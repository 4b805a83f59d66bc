import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from ray_ns.config import Noise
from ray_ns.images.augment import affine, randaugment


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def batch() -> torch.Tensor:
    return torch.rand(6, 3, 16, 16, generator=generator(9))


@pytest.mark.parametrize("magnitude", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("flip", [True, False])
def test_affine_is_a_function_of_the_generator_alone(batch: torch.Tensor, magnitude: float, flip: bool) -> None:
    torch.manual_seed(1)
    one = affine(batch, magnitude, flip, generator(3))
    torch.manual_seed(2)
    two = affine(batch, magnitude, flip, generator(3))
    assert torch.equal(one, two)
    assert not torch.equal(one, affine(batch, magnitude, flip, generator(4)))


@pytest.mark.parametrize("magnitude", [0.3, 1.0, 10.0])
def test_affine_stays_within_the_range_of_pixels(batch: torch.Tensor, magnitude: float) -> None:
    noised = affine(batch, magnitude, True, generator(0))
    assert noised.shape == batch.shape
    assert noised.min() >= 0
    assert noised.max() <= 1


def test_affine_of_magnitude_zero_changes_nothing(batch: torch.Tensor) -> None:
    torch.testing.assert_close(affine(batch, 0.0, False, generator(0)), batch, atol=1e-5, rtol=0)


def test_flip_mirrors_about_half_of_the_images_and_does_no_more() -> None:
    images = torch.rand(200, 1, 8, 8, generator=generator(1))
    noised = affine(images, 0.0, True, generator(2))
    mirrored = ((noised - images.flip(3)).abs().amax((1, 2, 3)) < 1e-5).sum().item()
    same = ((noised - images).abs().amax((1, 2, 3)) < 1e-5).sum().item()
    assert mirrored + same == 200
    assert 70 < mirrored < 130


def test_affine_draws_for_every_image_on_its_own() -> None:
    images = torch.rand(1, 1, 16, 16, generator=generator(1)).repeat(4, 1, 1, 1)
    noised = affine(images, 1.0, False, generator(2))
    assert all(not torch.equal(noised[0], noised[i]) for i in range(1, 4))


def test_affine_cuts_a_grey_hole_whose_side_follows_the_magnitude() -> None:
    noised = affine(torch.ones(64, 1, 32, 32), 0.5, False, generator(0))
    holes = (noised == 0.5).sum((1, 2, 3))
    # at most 20 % of each side either way of the centre: 0.2 * 32 = 6.4 pixels and one for the grid
    assert 0 < holes.max() <= 8 * 8
    assert (holes > 0).float().mean() > 0.9


@pytest.mark.parametrize("magnitude", [{}, {"magnitude": 5.0}, {"magnitude": 10.0}], ids=["default", "5", "10"])
def test_an_affine_magnitude_that_erases_images_is_refused_by_the_config(magnitude: dict[str, float]) -> None:
    try:
        noise = Noise.model_validate({"augment": "affine", **magnitude})
    except ValidationError:
        return
    noised = affine(torch.rand(300, 1, 16, 16, generator=generator(1)), noise.magnitude, False, generator(2))
    erased = (noised.flatten(1).std(1) < 1e-6).float().mean()
    assert erased < 0.1, f"{erased:.0%} of the images that a training with this config sees are of one colour"


@pytest.fixture(scope="module")
def noise() -> Callable[[np.ndarray, int], np.ndarray]:
    return randaugment(9, 2, True)


@pytest.mark.parametrize("channels", [1, 3])
def test_randaugment_depends_on_its_key_alone(noise: Callable[[np.ndarray, int], np.ndarray], channels: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (16, 16, channels), dtype=np.uint8)
    before = image.copy()
    one, two = [], []
    for key in range(20):
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)
        one.append(noise(image, key))
    for key in reversed(range(20)):
        random.seed(2 + key)
        np.random.seed(3)
        two.append(noise(image, key))
    for first, second in zip(one, reversed(two), strict=True):
        np.testing.assert_array_equal(first, second)
        assert first.shape == image.shape
        assert first.dtype == np.uint8
    assert len({image.tobytes() for image in one}) > 10
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("magnitude", [9.0, 10.0])
def test_randaugment_survives_its_own_extremes_and_leaves_something_to_see(magnitude: float) -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    strong = randaugment(magnitude, 2, True)
    kept = [(strong(image, key) != 128).any(2).mean() for key in range(1500)]
    assert min(kept) > 0.1, "a shift by more than the image's side leaves nothing but fill"


def test_randaugment_takes_every_uint64_as_a_key(noise: Callable[[np.ndarray, int], np.ndarray]) -> None:
    image = np.full((16, 16, 3), 99, np.uint8)
    image[:8] = 10
    assert noise(image, 2**64 - 1).shape == image.shape
