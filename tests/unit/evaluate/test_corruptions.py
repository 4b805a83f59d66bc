"""Corruptions of small images: what each does to an image, and that its draws are keyed."""

import importlib.util
import sys
import time
import types
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ray_ns.errors import InputError
from ray_ns.evaluate import corruptions
from ray_ns.evaluate.corruptions import CIFAR, COMMON, EXTRA, corrupted, mce, optics
from ray_ns.evaluate.corruptions.small import TABLE

SMALL = [name for name in (*COMMON, *EXTRA) if name != "spatter"]


def smooth(count: int = 2, side: int = 32, channels: int = 3) -> np.ndarray:
    """Images with structure: blurred noise, stretched to the whole range."""
    rng = np.random.default_rng(1)
    found = np.stack([optics.gaussian(rng.random((side, side, channels)), 2.0) for _ in range(count)])
    low, high = found.min((1, 2, 3), keepdims=True), found.max((1, 2, 3), keepdims=True)
    return ((found - low) / (high - low) * 255).astype(np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", SMALL)
def test_each_gives_such_images_stronger_with_severity_and_keyed(name: str, channels: int) -> None:
    if name == "saturate" and channels == 1:
        return
    images = smooth(4, 28, channels)
    by_severity = [corrupted(images, range(4), CIFAR, name, it) for it in (1, 3, 5)]
    for made in by_severity:
        assert (made.shape, made.dtype) == (images.shape, np.uint8)
    moved = [np.abs(made.astype(float) - images).mean() for made in by_severity]
    assert 0 < moved[-1] < 130
    if name != "elastic_transform":  # whose first severity moves three points alone
        assert moved[0] < moved[-1]
    assert (corrupted(images[1:], range(1, 4), CIFAR, name, 5) == by_severity[-1][1:]).all()
    assert (corrupted(images, range(4), CIFAR, name, 5) == by_severity[-1]).all()


def test_another_image_id_has_other_draws() -> None:
    images = smooth(1)
    assert (corrupted(images, [0], CIFAR, "shot_noise", 1) != corrupted(images, [1], CIFAR, "shot_noise", 1)).any()


@pytest.mark.parametrize(
    ("name", "severity", "spread"),
    [("gaussian_noise", 1, 0.04), ("gaussian_noise", 5, 0.10), ("shot_noise", 2, 0.0447)],
)
def test_noise_has_its_published_strength(name: str, severity: int, spread: float) -> None:
    grey = np.full((40, 32, 32, 3), 128, np.uint8)
    made = corrupted(grey, range(40), CIFAR, name, severity) / 255
    assert made.std() == pytest.approx(spread, rel=0.02)
    assert made.mean() == pytest.approx(128 / 255 - 0.5 / 255, abs=0.001)  # the published code cuts, and so do we


def test_impulses_take_their_share_of_the_values() -> None:
    made = corrupted(np.full((40, 32, 32, 3), 100, np.uint8), range(40), CIFAR, "impulse_noise", 5)
    assert (made != 100).mean() == pytest.approx(0.07, abs=0.003)
    assert {*np.unique(made).tolist()} == {0, 100, 255}


def test_brightness_contrast_and_saturation_are_the_formulas() -> None:
    image = np.array([[[200, 100, 50]] * 8] * 8, np.uint8)[None]
    value = 200 / 255
    brighter = corrupted(image, [0], CIFAR, "brightness", 2)[0, 0, 0]
    assert brighter.tolist() == [int(it * (value + 0.1) / value) for it in (200, 100, 50)]
    assert (corrupted(image, [0], CIFAR, "contrast", 5) == image).all()  # one colour is its own mean
    grey = corrupted(image, [0], CIFAR, "saturate", 2)[0, 0, 0]
    assert grey.tolist() == [200, int(200 - 100 * 0.1), int(200 - 150 * 0.1)]


def test_a_blur_keeps_one_colour_and_the_mean_of_a_dot() -> None:
    flat = np.full((32, 32, 1), 0.4)
    for made in (optics.gaussian(flat, 1.0), optics.motion(flat, 6, 1.5, 30), optics.zoomed(flat, 1.1)):
        assert np.allclose(made, 0.4)
    dot = np.zeros((33, 33, 1))
    dot[16, 16] = 1
    for made in (
        optics.gaussian(dot, 1.0),
        optics.motion(dot, 6, 1.5, 30),
        optics.convolved(dot, optics.disk(1.5, 0.1)),
    ):
        assert made.sum() == pytest.approx(1)
    along = optics.motion(dot, 6, 1.5, 0)[16, :, 0]
    assert along[16] > along[15] > along[14] > 0 == along[17], "half a Gaussian, along the line"


def test_the_middle_is_enlarged() -> None:
    image = np.zeros((32, 32, 1))
    image[12:20, 12:20] = 1
    assert optics.zoomed(image, 1.5).sum() == pytest.approx(64 * 2.25, rel=0.15)
    assert (optics.zoomed(image, 1.0) == image).all()


def test_the_names_go_by_size_and_channels() -> None:
    assert corruptions.names(32, 3) == SMALL
    assert corruptions.names(28, 1) == [name for name in SMALL if name != "saturate"]
    assert corruptions.names(224, 3) == [*COMMON, *EXTRA]
    assert [*TABLE] == SMALL
    assert corruptions.variant(63) == CIFAR


# AlexNet's errors on ImageNet-C at severity 1 .. 5, as the authors list them (hendrycks/robustness, issue 10).
BY_SEVERITY = {
    "gaussian_noise": (0.69528, 0.82542, 0.93554, 0.98138, 0.99452),
    "shot_noise": (0.71224, 0.85108, 0.93574, 0.98182, 0.99146),
    "impulse_noise": (0.78374, 0.89808, 0.9487, 0.9872, 0.99548),
    "defocus_blur": (0.65624, 0.73202, 0.85036, 0.91364, 0.94714),
    "glass_blur": (0.64308, 0.75054, 0.88806, 0.91622, 0.93344),
    "motion_blur": (0.5843, 0.70048, 0.82108, 0.8975, 0.92638),
    "zoom_blur": (0.70008, 0.76992, 0.80784, 0.84198, 0.87198),
    "snow": (0.71726, 0.88392, 0.86468, 0.9187, 0.94952),
    "frost": (0.6139, 0.79734, 0.8879, 0.89942, 0.9343),
    "fog": (0.67474, 0.7605, 0.84378, 0.8726, 0.945),
    "brightness": (0.4514, 0.48502, 0.54048, 0.62166, 0.7244),
    "contrast": (0.64548, 0.7615, 0.88874, 0.9776, 0.9927),
    "elastic_transform": (0.52596, 0.70116, 0.55686, 0.64076, 0.80554),
    "pixelate": (0.52218, 0.5462, 0.73728, 0.87092, 0.91262),
    "jpeg_compression": (0.51002, 0.54718, 0.57294, 0.65458, 0.74778),
}


def test_each_corruption_is_normalised_by_its_own_error_of_alexnet() -> None:
    """A network that is right but in one corruption, by how far it is wrong there; of all 15 the mean."""
    assert [*BY_SEVERITY] == [*COMMON] == [*corruptions.ALEXNET]
    for name, of_alexnet in BY_SEVERITY.items():
        wrong = dict.fromkeys(COMMON, 0.0) | {name: 0.5}
        assert mce(wrong) == pytest.approx(0.5 / np.mean(of_alexnet) / 15, abs=1e-6), name
    assert mce({name: float(np.mean(it)) for name, it in BY_SEVERITY.items()}) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("name", COMMON)
def test_what_errors_are_normalised_by_is_alexnets_mean_over_the_severities(name: str) -> None:
    assert corruptions.ALEXNET[name] == pytest.approx(np.mean(BY_SEVERITY[name]), abs=1e-6)


@pytest.mark.skipif(importlib.util.find_spec("imagecorruptions") is not None, reason="the package is there")
def test_without_the_package_large_images_are_refused_with_the_command_that_mends_it() -> None:
    with pytest.raises(InputError, match=r"of images of 224 pixels .* pip install 'ray-ns\[robustness\]'"):
        corruptions.variant(224)


def test_large_images_are_made_by_the_package_and_keyed() -> None:
    pytest.importorskip("imagecorruptions")
    images, before = smooth(2, 64), np.random.get_state()[1].copy()
    for name in (*COMMON, *EXTRA):
        made = corrupted(images, range(2), corruptions.variant(64), name, 3)
        assert (made == corrupted(images, range(2), corruptions.variant(64), name, 3)).all(), name
        assert (made.shape, made.dtype) == (images.shape, np.uint8)
    assert (np.random.get_state()[1] == before).all()


def stand_in(monkeypatch: pytest.MonkeyPatch, pause: float = 0.0) -> list[tuple[str, int, dict[str, int]]]:
    """A module with the interface of imagecorruptions; what it was called with. It draws as the package does.

    From NumPy's global generator, a second time after a ``pause``; of two corruptions from a seed that it is given.
    """
    calls = []

    def corrupt(
        image: np.ndarray, severity: int = 1, corruption_name: str | None = None, seed: int | None = None
    ) -> np.ndarray:
        assert image.dtype == np.uint8
        assert image.ndim == 3
        calls.append((str(corruption_name), severity, {} if seed is None else {"seed": seed}))
        rgb = np.repeat(image, 3, 2) if image.shape[2] == 1 else image
        draws = np.random if seed is None else np.random.RandomState(seed)
        first = draws.normal(size=rgb.shape)
        time.sleep(pause)
        return (rgb + severity * (first + draws.uniform(-3, 3, rgb.shape))).clip(0, 255).astype(np.uint8)

    module = types.ModuleType("imagecorruptions")
    module.corrupt = corrupt  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "imagecorruptions", module)
    return calls


LARGE = "imagenet-1.1.5"


def test_two_threads_do_not_take_each_others_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """As an actor with a GPU has: NumPy's global generator is one for all of them."""
    stand_in(monkeypatch, 0.001)
    images, before = smooth(8, 64), np.random.get_state()[1].copy()
    alone = [corrupted(images, range(at, at + 8), LARGE, "gaussian_noise", 3) for at in (0, 100)]
    with ThreadPoolExecutor(2) as threads:
        made = [threads.submit(corrupted, images, range(at, at + 8), LARGE, "gaussian_noise", 3) for at in (0, 100)]
        for one, its in zip(made, alone, strict=True):
            np.testing.assert_array_equal(one.result(), its)
    assert (np.random.get_state()[1] == before).all()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("severity", corruptions.SEVERITIES)
def test_large_images_are_keyed_whatever_package_makes_them(
    monkeypatch: pytest.MonkeyPatch, severity: int, channels: int
) -> None:
    """By image, corruption and severity; grey ones stay grey; NumPy's own draws go on as before."""
    calls, images, before = stand_in(monkeypatch), smooth(3, 64, channels), np.random.get_state()[1].copy()
    found = {name: corrupted(images, [7, 8, 9], LARGE, name, severity) for name in corruptions.names(64, channels)}
    assert (np.random.get_state()[1] == before).all()
    assert [(name, of) for name, of, _ in calls] == [(name, severity) for name in found for _ in images]
    assert {name for name, _, seed in calls if seed} == {"impulse_noise", "glass_blur"}, "which draw by a seed alone"
    np.random.seed(5)  # whoever drew before
    for name, made in found.items():
        assert (made.shape, made.dtype) == (images.shape, np.uint8)
        assert (made != images).any()
        np.testing.assert_array_equal(corrupted(images[::-1], [9, 8, 7], LARGE, name, severity), made[::-1])
        assert (corrupted(images, [8, 9, 7], LARGE, name, severity) != made).any((1, 2, 3)).all(), "by the image's id"
    assert len({made.tobytes() for made in found.values()}) == len(found), "by the corruption"
    other = corrupted(images, [7, 8, 9], LARGE, "fog", severity % 5 + 1).astype(int) - images
    assert (np.sign(other) != np.sign(found["fog"].astype(int) - images)).mean() > 0.2, "by the severity"
    if channels == 1:
        rgb = corrupted(np.repeat(images, 3, 3), [7, 8, 9], LARGE, "fog", severity)
        assert np.abs(found["fog"] - rgb.mean(3, keepdims=True)).max() <= 0.5


def test_after_a_corruption_that_fails_numpys_draws_go_on_and_so_do_others(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)
    before = np.random.get_state()[1].copy()
    with pytest.raises(AssertionError):
        corrupted(smooth(1, 64).astype(float), [0], LARGE, "fog", 1)
    assert (np.random.get_state()[1] == before).all()
    assert len(corrupted(smooth(1, 64), [0], LARGE, "fog", 1)) == 1
