"""The views of an image over which a teacher's probabilities are averaged (test-time augmentation)."""

from collections.abc import Iterator

from torch import Tensor
from torch.nn.functional import interpolate

from ray_ns.config import Views

CORNER = 7 / 8  # of the side


def views_of(pixels: Tensor, views: Views) -> Iterator[Tensor]:
    """``pixels``, (n, channels, H, H), as they are, then their other views, of the same shape and layout.

    A crop is a corner of ``CORNER`` x H pixels, enlarged to H (bilinear). ``ten_crops``: five and their mirror
    images (Krizhevsky et al. 2012).
    """
    some = [pixels] if views in ("one", "flip") else [pixels, *_corners(pixels)]
    for one in some:
        yield one
        if views in ("flip", "ten_crops"):
            yield one.flip(3)


def _corners(pixels: Tensor) -> Iterator[Tensor]:
    height, width = pixels.shape[2:]
    rows, columns = round(CORNER * height), round(CORNER * width)
    for top in (0, height - rows):
        for left in (0, width - columns):
            corner = pixels[:, :, top : top + rows, left : left + columns]
            yield interpolate(corner, (height, width), mode="bilinear", align_corners=False)
