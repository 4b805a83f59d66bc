"""Input noise: what is done to training images. Random only through the keys it is given.

``affine`` works on a whole batch of tensors and is meant for small images; ``randaugment`` is timm's, image by image.
"""

import math
import random
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def affine(images: Tensor, magnitude: float, flip: bool, generator: torch.Generator) -> Tensor:
    """Random rotation, scale, shear and shift, brightness, contrast and cutout, drawn for every image.

    Args:
        images: float (B, C, H, W), pixels in 0..1.
        magnitude: 1 is up to 20 degrees, 20 % of scale, shear and shift, 30 % of brightness, 50 % of contrast, and a
            grey hole of up to 40 % of the side.
        flip: mirror half of the images.
        generator: the only source of randomness.

    Returns:
        Noised images, float (B, C, H, W) in 0..1; what comes from outside the frame is black.
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


def randaugment(magnitude: float, operations: int, flip: bool) -> Callable[[np.ndarray, int], np.ndarray]:
    """Timm's RandAugment with increasing severity (``rand-m{M}-n{N}-mstd0.5-inc1``), as a function of (image, key).

    The image is uint8 (H, W, C) in and out; ``key`` decides every draw. Noisy Student, section 3 (N=2, M=27 on its
    own scale; timm's goes to 10).
    """
    from PIL import Image
    from timm.data.auto_augment import rand_augment_transform

    @lru_cache(1)
    def of_side(side: int) -> Callable[[Image.Image], Image.Image]:
        # Shifts are in pixels, as timm sets them for an image of that side. At a magnitude of 10 timm asks Pillow to
        # keep 0 bits of a colour, which it refuses; the spread of the magnitude reaches that from 9 as well.
        limits = {"translate_const": int(0.45 * side), "magnitude_max": 9.99}
        return rand_augment_transform(f"rand-m{magnitude:g}-n{operations}-mstd0.5-inc1", limits)

    def apply(pixels: np.ndarray, key: int) -> np.ndarray:
        # timm draws from the global generators; they are seeded by key, so nothing depends on what came before.
        random.seed(key)
        np.random.seed(key % 2**32)
        image = Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels).convert("RGB")
        if flip and random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        noised = of_side(min(image.size))(image)
        if pixels.shape[-1] == 1:
            noised = noised.convert("L")
        return np.asarray(noised, np.uint8).reshape(pixels.shape)

    return apply
