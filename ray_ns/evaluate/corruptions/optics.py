"""Blurs, warps and height maps that corruptions and perturbations of images are made of.

Images are float (H, W, channels) in 0..1, or (H, W).
"""

import math
from functools import lru_cache

import numpy as np


def gaussian(image: np.ndarray, sigma: float, border: str = "edge", truncate: float = 4.0) -> np.ndarray:
    """Blurred by a Gaussian of ``sigma`` pixels, cut off at ``truncate`` sigmas. ``border``: as ``np.pad`` names it."""
    radius = int(truncate * sigma + 0.5)
    if not radius:
        return image
    weights = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    weights /= weights.sum()
    for axis in (0, 1):
        wide = [(radius, radius) if at == axis else (0, 0) for at in range(image.ndim)]
        padded = np.moveaxis(np.pad(image, wide, border), axis, 0)  # type: ignore[call-overload]
        size = image.shape[axis]
        image = np.moveaxis(sum(w * padded[at : at + size] for at, w in enumerate(weights)), 0, axis)
    return image


def convolved(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """By a square kernel of odd side; the border is mirrored without repeating the edge."""
    half = kernel.shape[0] // 2
    size = image.shape[:2]
    padded = np.pad(image, [(half, half), (half, half)] + [(0, 0)] * (image.ndim - 2), "reflect")
    found = np.zeros_like(image, np.float64)
    for y, x in zip(*np.nonzero(kernel), strict=True):
        found += kernel[y, x] * padded[y : y + size[0], x : x + size[1]]
    return found


def disk(radius: float, alias_blur: float, half: int = 8) -> np.ndarray:
    """A kernel: a disk of ``radius`` pixels, its edge softened by a 3 x 3 Gaussian."""
    at = np.arange(-half, half + 1)
    found = (at[None] ** 2 + at[:, None] ** 2 <= radius**2).astype(np.float64)
    taps = np.exp(-(np.arange(-1, 2) ** 2) / (2 * alias_blur**2))
    return convolved(found / found.sum(), np.outer(taps, taps) / taps.sum() ** 2)


def motion(image: np.ndarray, radius: float, sigma: float, angle: float) -> np.ndarray:
    """Smeared in one direction as ImageMagick does: half a Gaussian along a line of ``angle`` degrees, edges kept."""
    width = 2 * math.ceil(radius) + 1
    weights = np.exp(-(np.arange(width) ** 2) / (2 * sigma**2))
    weights /= weights.sum()
    height, length = image.shape[:2]
    found = np.zeros_like(image, np.float64)
    for step, weight in enumerate(weights):
        down = math.ceil(step * math.sin(math.radians(angle)) - 0.5)
        right = math.ceil(step * math.cos(math.radians(angle)) - 0.5)
        rows = (np.arange(height) + down).clip(0, height - 1)
        found += weight * image[rows][:, (np.arange(length) + right).clip(0, length - 1)]
    return found


def zoomed(image: np.ndarray, factor: float) -> np.ndarray:
    """The middle of a square image, ``factor`` (>= 1) times as large, in its size; bilinear, corners onto corners."""
    weights = _enlarging(image.shape[0], factor)
    found = np.tensordot(weights, image, (1, 0))
    return np.moveaxis(np.tensordot(weights, found, (1, 1)), 0, 1)


@lru_cache(256)
def _enlarging(side: int, factor: float) -> np.ndarray:
    """Of each row of the enlarged image the weights of the image's rows, float (side, side)."""
    crop = math.ceil(side / factor)
    large = round(crop * factor)
    trim = (large - side) // 2
    at = (side - crop) // 2 + np.linspace(0, crop - 1, large)[trim : trim + side]
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(side)))


def sampled(image: np.ndarray, rows: np.ndarray, columns: np.ndarray, border: str = "edge") -> np.ndarray:
    """Bilinear values at float places; beyond the image goes ``border``: edge, symmetric, reflect or black."""
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    down, right = rows - top, columns - left
    if image.ndim == 3:
        down, right = down[..., None], right[..., None]
    above = _at(image, top, left, border) * (1 - right) + _at(image, top, left + 1, border) * right
    below = _at(image, top + 1, left, border) * (1 - right) + _at(image, top + 1, left + 1, border) * right
    return above * (1 - down) + below * down


def _at(image: np.ndarray, rows: np.ndarray, columns: np.ndarray, border: str) -> np.ndarray:
    height, width = image.shape[:2]
    found = image[_within(rows, height, border), _within(columns, width, border)]
    if border != "black":
        return found
    there = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    return np.where(there[..., None] if image.ndim == 3 else there, found, 0)


def _within(at: np.ndarray, size: int, border: str) -> np.ndarray:
    if border == "symmetric":
        at = at % (2 * size)
        return np.minimum(at, 2 * size - 1 - at)
    if border == "reflect" and size > 1:
        at = at % (2 * size - 2)
        return np.minimum(at, 2 * size - 2 - at)
    return at.clip(0, size - 1)


def plasma(side: int, decay: float, rng: np.random.Generator) -> np.ndarray:
    """A height map in 0..1, float (side, side): the diamond-square algorithm on a torus of the next power of two."""
    size = 1 << max(side - 1, 1).bit_length()
    found, step, wibble = np.zeros((size, size)), size, 100.0

    def near(sums: np.ndarray) -> np.ndarray:
        return sums / 4 + wibble * rng.uniform(-wibble, wibble, sums.shape)

    while step >= 2:
        half = step // 2
        corners = found[::step, ::step]
        pairs = corners + np.roll(corners, -1, 0)
        found[half::step, half::step] = near(pairs + np.roll(pairs, -1, 1))
        centres = found[half::step, half::step]
        found[::step, half::step] = near(centres + np.roll(centres, 1, 0) + corners + np.roll(corners, -1, 1))
        found[half::step, ::step] = near(centres + np.roll(centres, 1, 1) + corners + np.roll(corners, -1, 0))
        step, wibble = half, wibble / decay
    found -= found.min()
    return (found / found.max())[:side, :side]


def brighter(image: np.ndarray, by: float) -> np.ndarray:
    """With ``by`` added to the value of HSV, which is clipped to 0..1; hue and saturation stay."""
    value = image.max(2, keepdims=True)
    wanted = (value + by).clip(0, 1)
    return np.where(value > 0, image * (wanted / np.maximum(value, 1e-12)), wanted)


def grey(image: np.ndarray) -> np.ndarray:
    """The luminance, (H, W, 1)."""
    return image @ np.array([[0.299], [0.587], [0.114]]) if image.shape[2] == 3 else image
