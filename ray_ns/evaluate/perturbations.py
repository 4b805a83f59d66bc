"""ImageNet-P's sequences of near-equal images, made of any labelled images: ten kinds, of 16 to 41 frames.

They are made of an image's pixels as the network sees them; what lies beyond its edge is black. (ImageNet-P cuts its
frames from larger images, so that no edge is seen; CIFAR-10-P does as here.) The constants go by the side of the image:
those of CIFAR-10-P below ``LARGE`` pixels, those of ImageNet-P from there on. The draws of an image are keyed by its id
and the perturbation.
"""

import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from ray_ns import keyed
from ray_ns.evaluate.corruptions import optics
from ray_ns.evaluate.corruptions.small import SNOW_PALE

CIFAR, IMAGENET = "cifar-1", "imagenet-1"  # the constants, and the version of the code that makes them
LARGE = 64
NOISE = ("gaussian_noise", "shot_noise")
_SEED = 0x6E73_0019
Frames = Iterator[np.ndarray]
Draws = Sequence[np.random.Generator]


def variant(size: int) -> str:
    """Which constants images of ``size`` pixels get."""
    return CIFAR if size < LARGE else IMAGENET


def frames(images: np.ndarray, ids: Sequence[int], of: str, name: str) -> Frames:
    """The first frame of every image, the second of every image, and so on: uint8 as ``images`` (n, side, side, c).

    ``ids``: of the images. ``of``: the ``variant``. ``name``: the perturbation. Of no image it is one frame of none.
    """
    if not len(images):
        yield images
        return
    draws = [np.random.default_rng(keyed.seed(_SEED, zlib.crc32(name.encode()), int(it))) for it in ids]
    make, constants = TABLE[name]
    for frame in make(images / 255, constants[of == IMAGENET], draws):
        yield (frame.clip(0, 1) * 255 + 1e-9).astype(np.uint8)


def _gaussian_noise(x: np.ndarray, sigma: float, draws: Draws) -> Frames:
    yield x
    for _ in range(30):
        yield x + sigma * np.stack([rng.normal(size=it.shape) for rng, it in zip(draws, x, strict=True)])


def _shot_noise(x: np.ndarray, photons: int, draws: Draws) -> Frames:
    yield x
    for _ in range(30):
        yield np.stack([rng.poisson(it * photons) for rng, it in zip(draws, x, strict=True)]) / photons


def _motion_blur(x: np.ndarray, c: tuple[float, float, int, int], draws: Draws) -> Frames:
    radius, sigma, many, degrees = c
    for at in range(many):
        yield _each(x, partial(optics.motion, radius=radius, sigma=sigma, angle=degrees * (at - many + 1)))


def _zoom_blur(x: np.ndarray, c: None, draws: Draws) -> Frames:
    total = x.copy()
    yield x
    for at in range(1, 31):
        total += _moved(x, np.eye(2) / (1 + 0.004 * at))
        yield total / (at + 1)


def _snow(x: np.ndarray, c: tuple[float, float, float], draws: Draws) -> Frames:
    factor, radius, sigma = c
    layers = np.stack([optics.zoomed(rng.normal(0.05, 0.3, x.shape[1:3]), factor) for rng in draws])
    layers = np.floor(np.where(layers < 0.5, 0, layers).clip(0, 1) * 255)[..., None] / 255
    times, plus = SNOW_PALE
    pale = np.stack([0.85 * it + 0.15 * np.maximum(it, optics.grey(it) * times + plus) for it in x])
    for at in range(31):
        layer = _each(layers, partial(optics.motion, radius=radius, sigma=sigma, angle=4 * at - 150))
        yield pale + layer + layer[:, ::-1, ::-1]


def _brightness(x: np.ndarray, step: float, draws: Draws) -> Frames:
    for at in range(31):
        yield np.stack([optics.brighter(it, (at - 15) * step) for it in x])


def _translate(x: np.ndarray, c: tuple[int, int], draws: Draws) -> Frames:
    many, left = c
    for at in range(many):
        yield _moved(x, np.eye(2), at - left)


def _rotate(x: np.ndarray, c: None, draws: Draws) -> Frames:
    for at in range(31):
        turn = math.radians(at - 15)
        yield _moved(x, np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]]))


def _scale(x: np.ndarray, c: tuple[float, float], draws: Draws) -> Frames:
    step, least = c
    for at in range(31):
        yield _moved(x, np.eye(2) / (step * at + least))


def _tilt(x: np.ndarray, degrees: float, draws: Draws) -> Frames:
    """Turned about its two middle axes, and seen from as far as its diagonal is long."""
    side = x.shape[1]
    far, half = side * math.sqrt(2), side / 2
    for at in range(31):
        sine, cosine = math.sin(math.radians(degrees * (at - 15))), math.cos(math.radians(degrees * (at - 15)))
        about_x = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
        about_y = np.array([[cosine, 0, -sine], [0, 1, 0], [sine, 0, cosine]])
        centred = np.array([[1, 0, -half], [0, 1, -half], [0, 0, 1]])
        seen = about_x @ about_y @ centred + [[0, 0, 0], [0, 0, 0], [0, 0, far]]
        back = np.linalg.inv(np.array([[far, 0, half], [0, far, half], [0, 0, 1]]) @ seen)
        rows, columns = np.mgrid[:side, :side].astype(float)
        across, down, depth = np.moveaxis(np.stack([columns, rows, np.ones_like(rows)], -1) @ back.T, -1, 0)
        yield _each(x, partial(optics.sampled, rows=down / depth, columns=across / depth, border="black"))


def _moved(x: np.ndarray, back: np.ndarray, right: float = 0.0) -> np.ndarray:
    """Each pixel from where ``back`` (2, 2; of rows and columns) leads it from the middle, then moved to the right."""
    side = x.shape[1]
    middle = (side - 1) / 2
    rows, columns = np.mgrid[:side, :side] - middle
    down, across = np.tensordot(back, np.stack([rows, columns - right]), (1, 0)) + middle
    return _each(x, partial(optics.sampled, rows=down, columns=across, border="black"))


def _each(x: np.ndarray, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """``change`` of all images at once, which it takes for the channels of one."""
    count, side, _, channels = x.shape
    folded = change(np.moveaxis(x, 0, 2).reshape(side, side, count * channels))
    return np.moveaxis(folded.reshape(side, side, count, channels), 2, 0)


# Of each perturbation what makes it, and its constants: of small images and of large ones.
TABLE: dict[str, tuple[Callable[[np.ndarray, Any, Draws], Frames], tuple[Any, Any]]] = {
    "gaussian_noise": (_gaussian_noise, (0.02, 0.03)),
    "shot_noise": (_shot_noise, (700, 300)),
    "motion_blur": (_motion_blur, ((6, 1.8, 21, 9), (10, 3, 31, 4))),
    "zoom_blur": (_zoom_blur, (None, None)),
    "snow": (_snow, ((2, 10, 2), (3, 14, 4))),
    "brightness": (_brightness, (0.015, 0.02)),
    "translate": (_translate, ((16, 7), (41, 20))),
    "rotate": (_rotate, (None, None)),
    "tilt": (_tilt, (0.75, 1.0)),
    "scale": (_scale, ((0.02, 0.7), (0.025, 0.4))),
}
