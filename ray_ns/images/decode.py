"""Bytes of one image to pixels, or the reason why not. Total: it never raises on a bad image.

``VERSION`` names the rules; it is part of every label's lineage and changes when any pixel would. Pillow reads
everything; JPEGs, which are nearly all of a real pool, go through libjpeg-turbo and torch's resize at twice the speed
(pixels differ by at most 1), and are decoded at a fraction of their size where the source is far larger.
"""

import io
import warnings
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import simplejpeg
from PIL import Image, ImageFile, UnidentifiedImageError

VERSION = "decode-2"
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
JPEG = b"\xff\xd8\xff"
MAX_PIXELS = 50_000_000
SCALED_TO = 2  # a large JPEG is decoded at the smallest n/8 of its size that is this many times the target's side

ImageFile.LOAD_TRUNCATED_IMAGES = False
# Set once and not around each call: decoding runs in threads, and a filter is one for all of them.
warnings.filterwarnings("ignore", module=r"PIL\.")


class Reason(StrEnum):
    """Why an image is in quarantine."""

    EMPTY = "empty"
    NOT_AN_IMAGE = "not_an_image"
    TRUNCATED = "truncated"
    TOO_LARGE = "too_large"
    BIT_DEPTH = "bit_depth"


@dataclass(frozen=True)
class Decode:
    """How an image is read: ``size`` x ``size`` pixels, bilinear and antialiased, in 1 (grey) or 3 (RGB) channels.

    ``squash=False`` leaves it as large as it is, or at a fraction where that is still ``SCALED_TO`` times the size:
    for crops.
    """

    size: int
    channels: int
    squash: bool = True

    def __call__(self, data: bytes | None) -> np.ndarray | Reason:
        """Pixels, uint8 (size, size, channels) or (height, width, channels), or the reason for quarantine.

        The format is sniffed among ``FORMATS`` whatever the file's name said; the pixel count is read from the
        header before anything is decoded; alpha is composited on white; the first frame of an animation counts;
        EXIF orientation is ignored, for teacher, student and evaluation alike.
        """
        if not data:
            return Reason.EMPTY
        try:
            if data.startswith(JPEG):
                pixels = self._jpeg(data)
                if pixels is not None:
                    return pixels
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            if image.width * image.height > MAX_PIXELS:
                return Reason.TOO_LARGE
            if image.mode not in {"L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "1"}:
                return Reason.BIT_DEPTH
            return self._resized(image)
        except Image.DecompressionBombError:
            return Reason.TOO_LARGE
        except UnidentifiedImageError:
            return Reason.NOT_AN_IMAGE
        except Exception:  # a decoder may raise anything at all on a hostile file
            return Reason.TRUNCATED

    def _jpeg(self, data: bytes) -> np.ndarray | Reason | None:
        """Pixels of a JPEG, or None where Pillow shall look at it: another colour space, or anything but perfect."""
        try:
            height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
            if height * width > MAX_PIXELS:
                return Reason.TOO_LARGE
            if colours not in {"YCbCr", "Gray", "RGB"}:
                return None
            least = SCALED_TO * self.size
            wanted = "GRAY" if self.channels == 1 else "RGB"
            pixels = simplejpeg.decode_jpeg(data, wanted, min_height=least, min_width=least)
        except ValueError:
            return None
        if not self.squash or pixels.shape[:2] == (self.size, self.size):
            return pixels
        import torch

        # In this order torch sees a channels_last batch, and resizes it where it lies instead of turning it twice.
        batch = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)
        batch = torch.nn.functional.interpolate(batch, (self.size, self.size), mode="bilinear", antialias=True)
        return batch.permute(0, 2, 3, 1)[0].contiguous().numpy()

    def _resized(self, image: Image.Image) -> np.ndarray:
        if image.mode in {"LA", "PA", "RGBA"} or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = image.convert("L" if self.channels == 1 else "RGB")
        if self.squash and image.size != (self.size, self.size):
            image = image.resize((self.size, self.size), Image.Resampling.BILINEAR)
        return np.asarray(image, np.uint8).reshape(image.height, image.width, self.channels)
