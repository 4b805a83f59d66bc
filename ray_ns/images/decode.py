"""Bytes of one image to pixels, or the reason why not. Total: it never raises on a bad image.

``VERSION`` names the rules; it is part of every label's lineage and changes when any pixel would.
"""

import io
import warnings
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

VERSION = "decode-1"
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
MAX_PIXELS = 50_000_000

ImageFile.LOAD_TRUNCATED_IMAGES = False


class Reason(StrEnum):
    """Why an image is in quarantine."""

    EMPTY = "empty"
    NOT_AN_IMAGE = "not_an_image"
    TRUNCATED = "truncated"
    TOO_LARGE = "too_large"
    BIT_DEPTH = "bit_depth"


@dataclass(frozen=True)
class Decode:
    """How an image is read: ``size`` x ``size`` pixels, bilinear and antialiased, in 1 (grey) or 3 (RGB) channels."""

    size: int
    channels: int

    def __call__(self, data: bytes | None) -> np.ndarray | Reason:
        """Pixels, uint8 (size, size, channels), or the reason for quarantine.

        The format is sniffed among ``FORMATS`` whatever the file's name said; the pixel count is read from the
        header before anything is decoded; alpha is composited on white; the first frame of an animation counts;
        EXIF orientation is ignored, for teacher, student and evaluation alike.
        """
        if not data:
            return Reason.EMPTY
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                image = Image.open(io.BytesIO(data), formats=FORMATS)
                if image.width * image.height > MAX_PIXELS:
                    return Reason.TOO_LARGE
                if image.mode not in {"L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "1"}:
                    return Reason.BIT_DEPTH
                pixels = self._resized(image)
        except Image.DecompressionBombError:
            return Reason.TOO_LARGE
        except UnidentifiedImageError:
            return Reason.NOT_AN_IMAGE
        except Exception:  # a decoder may raise anything at all on a hostile file
            return Reason.TRUNCATED
        return pixels

    def _resized(self, image: Image.Image) -> np.ndarray:
        if image.mode in {"LA", "PA", "RGBA"} or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = image.convert("L" if self.channels == 1 else "RGB")
        if image.size != (self.size, self.size):
            image = image.resize((self.size, self.size), Image.Resampling.BILINEAR)
        return np.asarray(image, np.uint8).reshape(self.size, self.size, self.channels)
