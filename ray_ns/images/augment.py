"""Input noise: augmentation of training images. All randomness comes from the keys and generators passed in.

``affine`` augments a whole batch of tensors and is meant for small images. ``per_image`` does random crops, timm's
RandAugment and cutout, one image at a time.
"""

import math
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ray_ns.config import Noise

if TYPE_CHECKING:
    from PIL.Image import Image

_MAGNITUDE_STD = 0.5  # of RandAugment's draws, as timm's recipes for EfficientNet have it


def affine(images: Tensor, magnitude: float, flip: bool, generator: torch.Generator) -> Tensor:
    """Random rotation, scale, shear and shift, brightness, contrast and cutout, drawn for every image.

    Args:
        images: float (B, C, H, W), pixels in 0..1.
        magnitude: 1 is up to 20 degrees, 20 % of scale, shear and shift, 30 % of brightness, 50 % of contrast, and a
            grey hole of up to 40 % of the side.
        flip: mirror half of the images.
        generator: the only source of randomness.

    Returns:
        Noised images, float (B, C, H, W) in 0..1; pixels from outside the frame are black.
    """
    count, _, height, width = images.shape

    def uniform(*shape: int) -> Tensor:
        return (torch.rand(count, *shape, generator=generator) * 2 - 1).to(images.device)

    angle = uniform() * math.radians(20) * magnitude
    cos, sin = torch.cos(angle), torch.sin(angle)
    scale = 1 + 0.2 * magnitude * uniform(2)
    shear = 0.2 * magnitude * uniform()
    shift = 0.2 * magnitude * uniform(2) * 2  # the frame is 2 wide: -1 .. 1
    mirror = torch.where(uniform() < 0, -1.0, 1.0) if flip else torch.ones_like(angle)
    rows = [
        torch.stack([cos * scale[:, 0] * mirror, (shear * cos - sin) * scale[:, 0], shift[:, 0]], 1),
        torch.stack([sin * scale[:, 1] * mirror, (shear * sin + cos) * scale[:, 1], shift[:, 1]], 1),
    ]
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    images = F.grid_sample(images, grid, align_corners=False)

    contrast = 1 + 0.5 * magnitude * uniform(1, 1, 1)
    brightness = 0.3 * magnitude * uniform(1, 1, 1)
    images = ((images - 0.5) * contrast + 0.5 + brightness).clamp(0, 1)

    half_side = 0.2 * magnitude * (1 + uniform(1, 1))
    centre = uniform(2)[:, :, None, None]
    y = torch.linspace(-1, 1, height, device=images.device)[:, None]
    x = torch.linspace(-1, 1, width, device=images.device)[None, :]
    hole = ((y - centre[:, 0]).abs() < half_side) & ((x - centre[:, 1]).abs() < half_side)
    return images.masked_fill(hole[:, None], 0.5)


def per_image(noise: Noise, size: int) -> Callable[[np.ndarray, int], np.ndarray] | None:
    """A function (image, key) that crops one image, applies RandAugment and cuts out; None if ``noise`` asks for none.

    The image is uint8 (H, W, C), the result uint8 (size, size, C); ``key`` seeds every draw. The random resized crop is
    that of the released code (preprocessing.py): 8 to 100 % of the area, bicubic.
    """
    from PIL import Image

    crop = {"padded": _padded, "random_resized": _random_resized}.get(noise.crop)
    last = _padded if noise.crop == "padded_last" else None
    mirrored = noise.flip and noise.augment in {"flip", "randaugment"}
    augment = _randaugment(noise, size) if noise.augment == "randaugment" else None
    if noise.crop == "none" and augment is None and not mirrored and not noise.cutout:
        return None

    def apply(pixels: np.ndarray, key: int) -> np.ndarray:
        # timm draws from the global generators, so they are seeded with the key for every image.
        random.seed(key)
        np.random.seed(key % 2**32)
        grey = pixels.shape[-1] == 1
        image = Image.fromarray(pixels.squeeze(-1) if grey else pixels)
        if crop is not None:
            image = crop(image, size)
        if mirrored and random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if augment is not None:
            image = augment(image.convert("RGB"))
            if grey:
                image = image.convert("L")
        if noise.cutout:
            image = _cut_out(image, max(1, round(noise.cutout * size)))
        if last is not None:
            image = last(image, size)
        return np.asarray(image, np.uint8).reshape(size, size, pixels.shape[-1])

    return apply


def _randaugment(noise: Noise, size: int) -> "Callable[[Image], Image]":
    """RandAugment (Cubuk et al. 2020): ``noise.operations`` drawn with replacement, each applied with its probability.

    The operations are timm's of increasing severity, with shifts in proportion to the size; each draws its magnitude
    about ``noise.magnitude``, with a standard deviation of 0.5. The Cutout operation is the released code's
    (randaugment.py: up to 40 of 224 pixels each way from its centre).
    """
    from timm.data.auto_augment import RandAugment, rand_augment_choices, rand_augment_ops

    def cutout(image: "Image") -> "Image":
        if noise.probability < 1 and random.random() > noise.probability:
            return image
        level = min(max(random.gauss(noise.magnitude, _MAGNITUDE_STD), 0.0), 10.0)
        return _cut_out(image, 2 * round(level / 10 * 40 / 224 * size))

    # Not 10: timm's posterize would then keep 0 bits, which Pillow 12 refuses.
    limits = {"magnitude_std": _MAGNITUDE_STD, "magnitude_max": 9.99}
    names = rand_augment_choices("default", increasing=True)
    operations: list[Any] = rand_augment_ops(noise.magnitude, noise.probability, limits, names)
    return RandAugment([*operations, *([cutout] if noise.cutout_operation else [])], noise.operations)


def _cut_out(image: "Image", side: int) -> "Image":
    """The image with a grey square of ``side`` pixels about a random place; what is beyond the border is cut off."""
    left, top = (random.randint(0, length - 1) - side // 2 for length in image.size)
    image.paste((128,) * len(image.getbands()), (left, top, left + side, top + side))
    return image


def _padded(image: "Image", size: int) -> "Image":
    """The image shifted by up to 1/8 of its side each way, with reflected borders."""
    from PIL import Image

    by = max(1, size // 8)
    pixels = np.asarray(image)
    wide = np.pad(pixels, ((by, by), (by, by)) + ((0, 0),) * (pixels.ndim - 2), "reflect")
    top, left = random.randint(0, 2 * by), random.randint(0, 2 * by)
    return Image.fromarray(wide[top : top + size, left : left + size])


def _random_resized(image: "Image", size: int) -> "Image":
    """8 to 100 % of the image's area at an aspect of 3/4 to 4/3, resized."""
    from PIL import Image
    from timm.data.transforms import RandomResizedCropAndInterpolation as Crop

    top, left, height, width = Crop.get_params(image, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3))
    box = (left, top, left + width, top + height)
    return image.resize((size, size), Image.Resampling.BICUBIC, box)
