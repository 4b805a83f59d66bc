"""Input noise: augmentation of training images. All randomness comes from the keys and generators passed in.

``affine`` augments a whole batch of tensors and is meant for small images. ``per_image`` does random crops, timm's
RandAugment and cutout, one image at a time.
"""

import math
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ray_ns.config import Noise

if TYPE_CHECKING:
    from PIL.Image import Image


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

    The image is uint8 (H, W, C), the result uint8 (size, size, C); ``key`` seeds every draw. RandAugment is timm's
    with increasing severity (``rand-m{M}-n{N}-mstd0.5-inc1``) and shifts in proportion to the size (Noisy Student,
    section 3). The random resized crop is that of the released code (preprocessing.py): 8 to 100 % of the area,
    bicubic.
    """
    from PIL import Image
    from timm.data.auto_augment import rand_augment_transform

    crop = {"none": None, "padded": _padded, "random_resized": _random_resized}[noise.crop]
    augment = noise.augment == "randaugment"
    if crop is None and not augment and not noise.cutout:
        return None
    name = f"rand-m{noise.magnitude:g}-n{noise.operations}-mstd0.5-inc1"
    # Not 10: timm's posterize would then keep 0 bits, which Pillow 12 refuses.
    limits = {"translate_const": max(1, int(0.45 * size)), "magnitude_max": 9.99}
    transform = rand_augment_transform(name, limits)

    def apply(pixels: np.ndarray, key: int) -> np.ndarray:
        # timm draws from the global generators, so they are seeded with the key for every image.
        random.seed(key)
        np.random.seed(key % 2**32)
        grey = pixels.shape[-1] == 1
        image = Image.fromarray(pixels.squeeze(-1) if grey else pixels)
        if crop is not None:
            image = crop(image, size)
        if augment:
            image = image.convert("RGB")
            if noise.flip and random.random() < 0.5:
                image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            image = transform(image)
            if grey:
                image = image.convert("L")
        if noise.cutout:
            side = max(1, round(noise.cutout * size))
            left, top = (random.randint(0, size - 1) - side // 2 for _ in range(2))
            image.paste((128,) * len(image.getbands()), (left, top, left + side, top + side))
        return np.asarray(image, np.uint8).reshape(size, size, pixels.shape[-1])

    return apply


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
