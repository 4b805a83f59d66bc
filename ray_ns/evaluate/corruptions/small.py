"""Corruptions of small images, with the constants of CIFAR-10-C (Hendrycks & Dietterich 2019), at any side below 64.

Written from the published constants and definitions; lengths that CIFAR's code takes from its 32 pixels are the image's
side here. What differs from the published images: every draw is of NumPy's ``Generator``; frost is laid on as a
computed texture of the mean colour and contrast of the photographs that the published ones use; spatter, which needs
edge detection, is left out.
"""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from ray_ns.evaluate.corruptions import optics

Corrupt = Callable[[np.ndarray, Any, np.random.Generator], np.ndarray]
FROST = (0.57, 0.65, 0.70)  # the mean colour of the published photographs
SNOW_PALE = (1.5, 0.5)  # what snow makes of the luminance: times and plus


def _gaussian_noise(x: np.ndarray, c: float, rng: np.random.Generator) -> np.ndarray:
    return x + rng.normal(0, c, x.shape)


def _shot_noise(x: np.ndarray, c: float, rng: np.random.Generator) -> np.ndarray:
    return rng.poisson(x * c) / c


def _impulse_noise(x: np.ndarray, c: float, rng: np.random.Generator) -> np.ndarray:
    hit, white = rng.random(x.shape) < c, rng.random(x.shape) < 0.5
    return np.where(hit, white.astype(float), x)


def _speckle_noise(x: np.ndarray, c: float, rng: np.random.Generator) -> np.ndarray:
    return x + x * rng.normal(0, c, x.shape)


def _gaussian_blur(x: np.ndarray, c: float, rng: np.random.Generator) -> np.ndarray:
    return optics.gaussian(x, c)


def _glass_blur(x: np.ndarray, c: tuple[float, int, int], rng: np.random.Generator) -> np.ndarray:
    """Each pixel becomes one of those above and left of it: the released code copies, where it means to swap."""
    sigma, reach, times = c
    x = _rounded(optics.gaussian(x, sigma))
    rows, columns = (np.arange(reach + 1, size) for size in x.shape[:2])
    for _ in range(times):
        down, right = rng.integers(-reach, reach, (2, len(rows), len(columns)))
        x[reach + 1 :, reach + 1 :] = x[rows[:, None] + down, columns[None] + right]
    return optics.gaussian(x, sigma)


def _defocus_blur(x: np.ndarray, c: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    return optics.convolved(x, optics.disk(*c))


def _motion_blur(x: np.ndarray, c: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    return optics.motion(x, *c, rng.uniform(-45, 45))


def _zoom_blur(x: np.ndarray, c: int, rng: np.random.Generator) -> np.ndarray:
    layers = [x, *(optics.zoomed(x, 1 + at / 100) for at in range(c + 1))]
    return np.mean(layers, 0)


def _snow(x: np.ndarray, c: tuple[float, ...], rng: np.random.Generator) -> np.ndarray:
    layer = optics.zoomed(rng.normal(c[0], c[1], x.shape[:2]), c[2])
    layer = _rounded(np.where(layer < c[3], 0, layer).clip(0, 1))
    layer = optics.motion(layer, c[4], c[5], rng.uniform(-135, -45))[..., None]
    times, plus = SNOW_PALE
    x = c[6] * x + (1 - c[6]) * np.maximum(x, optics.grey(x) * times + plus)
    return x + layer + np.rot90(layer, 2)


def _frost(x: np.ndarray, c: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    crystals = (0.8 + 0.4 * optics.plasma(x.shape[0], 1.4, rng)[..., None]) * FROST
    return c[0] * x + c[1] * (crystals if x.shape[2] == 3 else optics.grey(crystals))


def _fog(x: np.ndarray, c: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    most = x.max()
    return (x + c[0] * optics.plasma(x.shape[0], c[1], rng)[..., None]) * most / (most + c[0])


def _brightness(x: np.ndarray, c: float, rng: np.random.Generator) -> np.ndarray:
    return optics.brighter(x, c)


def _saturate(x: np.ndarray, c: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    value, least = x.max(2, keepdims=True), x.min(2, keepdims=True)
    now = np.where(value > 0, (value - least) / np.maximum(value, 1e-12), 0)
    wanted = (now * c[0] + c[1]).clip(0, 1)
    grey = value * np.concatenate([np.ones_like(value), 1 - wanted, 1 - wanted], 2)  # which has the hue of red
    return np.where(now > 0, value - (value - x) * (wanted / np.maximum(now, 1e-12)), grey)


def _contrast(x: np.ndarray, c: float, rng: np.random.Generator) -> np.ndarray:
    means = x.mean((0, 1), keepdims=True)
    return (x - means) * c + means


def _elastic(x: np.ndarray, c: tuple[float, float, float], rng: np.random.Generator) -> np.ndarray:
    """A random affine map of three points, then a random smooth shift of every pixel."""
    side = x.shape[0]
    strength, sigma, reach = (it * side for it in c)
    middle, arm = side // 2, side // 3
    points = np.array([[middle + arm, middle + arm], [middle + arm, middle - arm], [middle - arm, middle - arm]], float)
    moved = points + rng.uniform(-reach, reach, points.shape)
    back = np.linalg.solve(np.hstack([moved, np.ones((3, 1))]), points)  # from a place in the result to one in x
    rows, columns = np.mgrid[:side, :side].astype(float)
    places = np.stack([columns, rows, np.ones_like(rows)], -1) @ back
    x = optics.sampled(x, places[..., 1], places[..., 0], "reflect")
    shifts = [optics.gaussian(rng.uniform(-1, 1, x.shape[:2]), sigma, "symmetric", 3.0) * strength for _ in range(2)]
    return optics.sampled(x, rows + shifts[1], columns + shifts[0], "symmetric")


def _pixelate(x: np.ndarray, c: float, rng: np.random.Generator) -> np.ndarray:
    side = x.shape[0]
    small = _image(x).resize((int(side * c), int(side * c)), Image.Resampling.BOX)
    return _array(small.resize((side, side), Image.Resampling.BOX), x)


def _jpeg(x: np.ndarray, c: int, rng: np.random.Generator) -> np.ndarray:
    sink = io.BytesIO()
    _image(x).save(sink, "JPEG", quality=c)
    return _array(Image.open(sink), x)


def _rounded(x: np.ndarray) -> np.ndarray:
    return np.floor(x * 255) / 255


def _image(x: np.ndarray) -> Image.Image:
    return Image.fromarray(np.rint(x * 255).astype(np.uint8).squeeze())


def _array(image: Image.Image, like: np.ndarray) -> np.ndarray:
    return np.asarray(image).reshape(like.shape) / 255


# Of each corruption what makes it, and its constants at severity 1 to 5.
TABLE: dict[str, tuple[Corrupt, tuple[Any, ...]]] = {
    "gaussian_noise": (_gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.10)),
    "shot_noise": (_shot_noise, (500, 250, 100, 75, 50)),
    "impulse_noise": (_impulse_noise, (0.01, 0.02, 0.03, 0.05, 0.07)),
    "defocus_blur": (_defocus_blur, ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))),
    "glass_blur": (_glass_blur, ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2))),
    "motion_blur": (_motion_blur, ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))),
    "zoom_blur": (_zoom_blur, (5, 10, 15, 20, 25)),  # up to so many hundredths larger
    "snow": (
        _snow,
        (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
    ),
    "frost": (_frost, ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))),
    "fog": (_fog, ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))),
    "brightness": (_brightness, (0.05, 0.1, 0.15, 0.2, 0.3)),
    "contrast": (_contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
    # of the side: how strong the shifts are, their smoothness, how far the three points go
    "elastic_transform": (
        _elastic,
        ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
    ),
    "pixelate": (_pixelate, (0.95, 0.9, 0.85, 0.75, 0.65)),
    "jpeg_compression": (_jpeg, (80, 65, 58, 50, 40)),
    "speckle_noise": (_speckle_noise, (0.06, 0.1, 0.12, 0.16, 0.2)),
    "gaussian_blur": (_gaussian_blur, (0.4, 0.6, 0.7, 0.8, 1)),
    "saturate": (_saturate, ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2))),
}


def corrupted(image: np.ndarray, name: str, severity: int, rng: np.random.Generator) -> np.ndarray:
    """A square uint8 image (side, side, 1 or 3) corrupted; ``severity``: 1 to 5. The same draws give the same bytes."""
    corrupt, constants = TABLE[name]
    found = corrupt(image / 255, constants[severity - 1], rng)
    return (found.clip(0, 1) * 255 + 1e-9).astype(np.uint8)
