import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from timm.data import auto_augment
from timm.data.auto_augment import rand_augment_transform

from ray_ns.config import Noise
from ray_ns.images.augment import affine, per_image


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
    made = per_image(Noise(), 16)
    assert made is not None
    return made


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
    strong = per_image(Noise(magnitude=magnitude), 32)
    assert strong is not None
    kept = [(strong(image, key) != 128).any(2).mean() for key in range(1500)]
    assert min(kept) > 0.1, "a shift by more than the image's side leaves nothing but fill"


def test_randaugment_of_runs_before_format_4_is_timms_own_to_the_bit() -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    ours = per_image(Noise(probability=0.5, cutout_operation=False, flip=False), 32)
    theirs = rand_augment_transform("rand-m9-n2-mstd0.5-inc1", {"translate_const": 14, "magnitude_max": 9.99})
    assert ours is not None
    for key in range(200):
        found = ours(image, key)
        random.seed(key)
        np.random.seed(key)
        np.testing.assert_array_equal(found, np.asarray(theirs(Image.fromarray(image))))


@pytest.mark.parametrize(("probability", "spread"), [(1.0, 0), (0.5, 1)])
@pytest.mark.parametrize("cutout", [True, False])
def test_randaugment_applies_all_of_its_operations(
    probability: float, spread: int, cutout: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    applied: list[str] = []
    for name, operation in auto_augment.NAME_TO_OP.items():
        monkeypatch.setitem(auto_augment.NAME_TO_OP, name, _noted(name, operation, applied))
    paste = Image.Image.paste
    monkeypatch.setattr(Image.Image, "paste", lambda *args: (applied.append("Cutout"), paste(*args))[1])
    noised = per_image(Noise(probability=probability, cutout_operation=cutout), 32)
    assert noised is not None
    counts, kinds = [], set()
    for key in range(2000):
        noised(np.zeros((32, 32, 3), np.uint8), key)
        counts.append(len(applied))
        kinds |= {*applied}
        applied.clear()
    assert np.mean(counts) == pytest.approx(2 * probability, abs=0.1 * spread)
    assert np.ptp(counts) == (2 if spread else 0)  # at 0.5 a quarter of the images has none, a quarter two
    assert len(kinds) == 15 + cutout


def _noted(name: str, operation: Callable[..., Any], applied: list[str]) -> Callable[..., Any]:
    def noting(image: Image.Image, *args: Any, **kwargs: Any) -> Any:
        applied.append(name)
        return operation(image, *args, **kwargs)

    return noting


@pytest.mark.parametrize("magnitude", [0.0, 4.5, 10.0])
def test_the_cutout_operation_is_the_released_codes(magnitude: float, monkeypatch: pytest.MonkeyPatch) -> None:
    sides: list[int] = []
    monkeypatch.setattr(Image.Image, "paste", lambda _, grey, box: sides.append(box[2] - box[0]))
    noised = per_image(Noise(operations=1, flip=False, magnitude=magnitude), 224)
    assert noised is not None
    for key in range(600):
        noised(np.zeros((224, 224, 3), np.uint8), key)
    assert 15 < len(sides) < 75  # one operation of 16
    # Up to 40 of 224 pixels each way from its centre; the magnitude is drawn about its own by 0.5, within 0 .. 10.
    assert max(sides) <= 2 * round(min(magnitude + 2, 10) / 10 * 40)
    assert np.mean(sides) == pytest.approx(2 * magnitude / 10 * 40, abs=4)


@pytest.mark.parametrize("crop", ["none", "padded"])
@pytest.mark.parametrize("channels", [1, 3])
def test_flip_alone_mirrors_half_of_the_images_and_does_nothing_else(crop: str, channels: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (16, 16, channels), dtype=np.uint8)
    noised = per_image(Noise.model_validate({"augment": "flip", "crop": crop}), 16)
    assert noised is not None
    plain = per_image(Noise.model_validate({"augment": "none", "crop": crop}), 16)
    mirrored = 0
    for key in range(200):
        before = plain(image, key) if plain else image
        found = noised(image, key)
        assert (found == before).all() or (found == before[:, ::-1]).all()
        mirrored += bool((found == before[:, ::-1]).all())
    assert 70 < mirrored < 130


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"augment": "none", "flip": True}, "augment: flip"),
        ({"augment": "flip", "flip": False}, "augment: none"),
    ],
)
def test_a_flip_that_would_do_nothing_is_refused_with_the_setting_that_does(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Noise.model_validate(values)


def test_randaugment_takes_every_uint64_as_a_key(noise: Callable[[np.ndarray, int], np.ndarray]) -> None:
    image = np.full((16, 16, 3), 99, np.uint8)
    image[:8] = 10
    assert noise(image, 2**64 - 1).shape == image.shape


def test_without_input_noise_there_is_nothing_to_do_per_image() -> None:
    assert per_image(Noise(augment="none"), 16) is None
    assert per_image(Noise(augment="affine", magnitude=0.7), 16) is None


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("last", ["", "_last"])
def test_a_padded_crop_moves_the_image_by_an_eighth_at_most(channels: int, last: str) -> None:
    image = np.zeros((16, 16, channels), np.uint8)
    image[8, 8] = 255
    crop = per_image(Noise.model_validate({"crop": f"padded{last}", "augment": "none"}), 16)
    assert crop is not None
    places = {tuple(int(it) for it in np.argwhere(crop(image, key)[..., 0] == 255)[0]) for key in range(300)}
    assert places == {(y, x) for y in range(6, 11) for x in range(6, 11)}


@pytest.mark.parametrize("channels", [1, 3])
def test_a_random_resized_crop_shows_8_to_100_percent_of_the_area(channels: int) -> None:
    image = np.zeros((60, 80, channels), np.uint8)
    image[...] = (np.arange(80) * 3)[None, :, None]  # brightness says the column
    crop = per_image(Noise(crop="random_resized", augment="none"), 20)
    assert crop is not None
    widths = []
    for key in range(200):
        found = crop(image, key)
        assert found.shape == (20, 20, channels)
        widths.append((int(found[..., 0].max()) - int(found[..., 0].min())) / 3)
    assert min(widths) < 25
    assert max(widths) > 60
    np.testing.assert_array_equal(crop(image, 7), crop(image, 7))


@pytest.mark.parametrize(("crop", "mirrored"), [("padded", False), ("padded_last", True)])
def test_a_padded_crop_comes_before_or_after_the_other_noise(crop: str, mirrored: bool) -> None:
    image = np.zeros((32, 32, 3), np.uint8)
    noised = per_image(Noise.model_validate({"crop": crop, "augment": "none", "cutout": 0.5}), 32)
    assert noised is not None
    found = [(noised(image, key) == 128).all(2) for key in range(300)]
    # A hole that was cut first, at a border, is mirrored by the crop that moves it into the image: it is wider than 16.
    assert any(hole.any(0).sum() > 16 or hole.any(1).sum() > 16 for hole in found) == mirrored


def test_cutout_greys_a_square_of_its_share_of_the_side() -> None:
    cut = per_image(Noise(augment="none", cutout=0.5), 32)
    assert cut is not None
    areas = [(cut(np.zeros((32, 32, 3), np.uint8), key) == 128).all(2).sum() for key in range(50)]
    assert max(areas) == 16 * 16
    assert min(areas) >= 8 * 8  # its centre is inside


def test_randaugment_at_its_strongest_never_fails() -> None:
    noise = per_image(Noise(magnitude=10), 16)
    assert noise is not None
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    for key in range(300):  # one operation in 15 posterises
        assert noise(image, key).shape == image.shape
