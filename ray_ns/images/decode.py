"""Decoding: from the bytes of one image to pixels, or to the reason why not. It never raises on a bad image.

``VERSION`` names the rules. It is part of every label's lineage and changes when any pixel would. Pillow can read all
formats. JPEGs, which are nearly all of a real pool, go through libjpeg-turbo and torch's resize, which is twice as fast
(pixels differ by at most 1), and far larger ones are decoded at a fraction of their size. Pillow resizes by every rule
but the usual ones, to the pixel where timm has it.

What is decided:
* The bytes tell the format, names do not. JPEG, PNG, WebP, GIF and BMP are read; TIFF, HEIC, AVIF, JPEG XL, PPM, PSD,
  ICO, SVG, EPS and PDF are refused by name (``unsupported_format``), anything else is ``not_an_image``.
* Size, shape and scans are judged by the header, before a pixel is decoded: at most 50 MP, no side below 8 pixels
  (tracking pixels, spacers), no side above 20 times the other (banners, rules). Texts and profiles that unpack to more
  than Pillow's limits are bombs: ``too_large``.
* Colour of 16 bits is read by its high byte. Grey of 16 bits, integers and floats are refused: they are measurements
  on a scale of their own, and would turn all white or black.
* Transparent images are drawn on white. Of an animation the first frame is read, of several pictures the first, of an
  APNG the picture that viewers without animation show. CMYK and YCCK become RGB.
* EXIF orientation and ICC profiles are ignored, for teacher, student and evaluation alike.
* A truncated image is refused, wherever it is cut; bytes after a whole image are ignored. A JPEG is truncated too if
  libjpeg warns about its pixels (cut and closed again, bytes zeroed or missing). Warnings about its header are ignored.
  Flipped bits that pass the format's own checks go unnoticed: only a content hash would find them.
* An image of more than ``MAX_BYTES`` encoded bytes is ``too_large``; readers do not even read it (``stand_in``).
"""

import io
import math
import re
import warnings
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, Self

import numpy as np
import simplejpeg
from PIL import Image, ImageFile, UnidentifiedImageError

from ray_ns.config import MIDDLE, Data

VERSION = "decode-4"
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
JPEG = b"\xff\xd8\xff"
MAX_PIXELS = 50_000_000
MAX_BYTES = 256 << 20  # encoded; MAX_PIXELS take 200 MB where nothing is compressed
MIN_SIDE = 8
MAX_ASPECT = 20
MAX_SCANS = 100  # of a progressive JPEG; a camera or a tool makes 10
SCANS_COUNTED_FROM = 1_000_000  # pixels; below, even 10,000 scans are soon decoded
SCALED_TO = 2  # a large JPEG is decoded at the smallest n/8 of its size that is this many times the target's side

ImageFile.LOAD_TRUNCATED_IMAGES = False
# Set once, not around each call: decoding runs in threads, which share the filters.
warnings.filterwarnings("ignore", module=r"PIL\.")


class Reason(StrEnum):
    """Why an image is in quarantine."""

    EMPTY = "empty"
    NOT_AN_IMAGE = "not_an_image"
    TRUNCATED = "truncated"
    TOO_LARGE = "too_large"
    TOO_SMALL = "too_small"
    ASPECT = "extreme_aspect"
    BIT_DEPTH = "bit_depth"
    FORMAT = "unsupported_format"
    TOO_SLOW = "too_slow"
    CRASHES = "crashes_decoder"


# What libjpeg says of a JPEG whose pixels are not all there.
DAMAGED = re.compile("Corrupt JPEG data(?!: bad ICC)|Premature end of JPEG|Inconsistent progression")
# What it says of a JPEG that has all its pixels. Strict decoding stops at the first warning, and others may follow. The
# markers are those of tables, texts and thumbnails; bytes before any other marker are remains of pixels.
HARMLESS = re.compile("unknown JFIF revision|Invalid SOS parameters|extraneous bytes before marker 0x(?:db|fe|e)")

_STAND_IN = b"\0ray_ns: too large to be read: "

# First bytes of formats that are read. BMP is missing: its two letters begin texts too.
READ = re.compile(rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF.{4}WEBP", re.DOTALL)
# First bytes of picture formats that are not read. The last line is SVG, but not an HTML page that contains one.
OTHER_FORMATS = re.compile(
    rb"II[*+]\0|MM\0[*+]|P[1-7]\s|8BPS|\0\0[\1\2]\0|%!PS|\xc5\xd0\xd3\xc6|%PDF|\xff\x0a|\0{3}\x0cJXL |\0{3}\x0cjP  |"
    rb".{4}ftyp(?:hei|hev|mif1|msf1|avi[fs])|"
    rb"(?i:(?:\xef\xbb\xbf)?\s*(?!<!doctype html|<html)(?:<.{0,1000}?)?<svg[\s>])",
    re.DOTALL,
)

# What Pillow says of a PNG's text or profile that unpacks beyond its limits.
UNPACKED_TOO_MUCH = re.compile("too large|too much memory", re.IGNORECASE)


def stand_in(where: str) -> bytes:
    """What a reader returns instead of an image of more than ``MAX_BYTES``; ``where``: the image's name."""
    return _STAND_IN + where.encode(errors="surrogateescape")


@dataclass(frozen=True)
class Decode:
    """How an image is read: ``size`` x ``size`` pixels, antialiased, in 1 (grey) or 3 (RGB) channels.

    ``fit``: ``squash`` uses the whole image. ``crop`` uses the square in its middle: whose side is ``MIDDLE`` of the
    short side, in whole pixels; or, where ``resized`` is given, the one that the middle of the image would be, were it
    resized to so many pixels of its short side (timm's rule). ``none`` does not resize, for random crops; a JPEG may be
    scaled down to ``SCALED_TO`` times the size.
    """

    size: int
    channels: int
    fit: Literal["squash", "crop", "none"] = "squash"
    resized: int | None = None
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"

    @classmethod
    def of(cls, data: Data) -> Self:
        """As the settings say."""
        usual = data.fit == "squash" or is_usual(data.size, data.resized, data.interpolation)
        return cls(data.size, data.channels, data.fit, None if usual else data.resized, data.interpolation)

    def __call__(self, data: bytes | None) -> np.ndarray | Reason:
        """Pixels, uint8 (size, size, channels), or (height, width, channels) as they are; or why there are none."""
        if not data:
            return Reason.EMPTY
        if len(data) > MAX_BYTES or data.startswith(_STAND_IN):
            return Reason.TOO_LARGE
        try:
            if data.startswith(JPEG):
                pixels = self._jpeg(data)
                if pixels is not None:
                    return pixels
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            refused = _refused(image.width, image.height)
            if refused is not None:
                return refused
            if image.mode not in {"L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "1"}:
                return Reason.BIT_DEPTH
            return self._resized(image)
        except Image.DecompressionBombError:
            return Reason.TOO_LARGE
        except UnidentifiedImageError:
            return Reason.FORMAT if OTHER_FORMATS.match(data[:1024]) else Reason.NOT_AN_IMAGE
        except ValueError as error:
            return Reason.TOO_LARGE if UNPACKED_TOO_MUCH.search(str(error)) else Reason.TRUNCATED
        except Exception:  # a decoder may raise anything at all on a hostile file
            return Reason.TRUNCATED

    def _jpeg(self, data: bytes, mended: bool = False) -> np.ndarray | Reason | None:
        """Pixels of a JPEG; None if Pillow should decode it: another colour space, or an unknown kind."""
        try:
            height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
            refused = _refused(width, height)
            if refused is not None:
                return refused
            if height * width > SCANS_COUNTED_FROM and _scans(data) > MAX_SCANS:
                return Reason.TOO_SLOW
            if colours not in {"YCbCr", "Gray", "RGB"}:
                simplejpeg.decode_jpeg(data, "CMYK", min_height=1, min_width=1)  # Pillow would not say what is missing
                return None
            # Of a small share of the short side as many pixels are to be left as of the usual one.
            least = max(SCALED_TO * self.size, math.ceil(SCALED_TO * MIDDLE * (self.resized or 0)))
            wanted = "GRAY" if self.channels == 1 else "RGB"
            pixels = simplejpeg.decode_jpeg(data, wanted, min_height=least, min_width=least)
        except ValueError as error:
            if not mended and HARMLESS.search(str(error)):
                return self._jpeg(_mended(data), mended=True)
            return Reason.TRUNCATED if DAMAGED.search(str(error)) else None
        if self.interpolation != "bilinear" or self.resized is not None:
            return self._as_timm(Image.fromarray(pixels.squeeze()), width, height)
        if self.fit == "crop":
            left, top, right, bottom = _middle(pixels.shape[1], pixels.shape[0])
            pixels = np.ascontiguousarray(pixels[top:bottom, left:right])
        if self.fit == "none" or pixels.shape[:2] == (self.size, self.size):
            return pixels
        import torch

        # With this permute torch sees a channels_last batch, and resizes it without two transposes.
        batch = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)
        batch = torch.nn.functional.interpolate(batch, (self.size, self.size), mode="bilinear", antialias=True)
        return batch.permute(0, 2, 3, 1)[0].contiguous().numpy()

    def _resized(self, image: Image.Image) -> np.ndarray:
        if image.mode in {"LA", "PA", "RGBA"} or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = image.convert("L" if self.channels == 1 else "RGB")
        if self.interpolation != "bilinear" or self.resized is not None:
            return self._as_timm(image, image.width, image.height)
        if self.fit == "crop":
            image = image.crop(_middle(image.width, image.height))
        if self.fit != "none" and image.size != (self.size, self.size):
            image = image.resize((self.size, self.size), Image.Resampling.BILINEAR)
        return np.asarray(image, np.uint8).reshape(image.height, image.width, self.channels)

    def _as_timm(self, image: Image.Image, width: int, height: int) -> np.ndarray:
        """Resized and cropped as timm does it, in one step. ``width``, ``height``: before a JPEG was scaled down."""
        box = (0.0, 0.0, float(width), float(height))
        if self.fit == "crop":
            assert self.resized is not None, "a crop by timm's rule says of how many pixels"
            short = min(width, height)
            steps = []  # per side: the first pixel of the middle, and pixels of the image to one of the resized image
            for side in (width, height):
                whole = int(self.resized * side / short)
                steps.append((round((whole - self.size) / 2), side / whole))
            (left, across), (top, down) = steps
            box = (left * across, top * down, (left + self.size) * across, (top + self.size) * down)
        scale = next(it / 8 for it in range(1, 9) if (-(-width * it // 8), -(-height * it // 8)) == image.size)
        first, last = (box[0] * scale, box[1] * scale), (box[2] * scale, box[3] * scale)
        within = (*first, min(last[0], image.width), min(last[1], image.height))
        wanted = self.size, self.size
        image = image.resize(wanted, Image.Resampling[self.interpolation.upper()], within)
        return np.asarray(image, np.uint8).reshape(*wanted, self.channels)


def is_usual(size: int, resized: int, interpolation: str) -> bool:
    """Whether the middle of an image is cropped by the rule that there was first: ``MIDDLE``, to a pixel, bilinear.

    timm counts whole pixels of the resized image, and rounds them down; the labels of many runs do not.
    """
    return interpolation == "bilinear" and abs(resized - size / MIDDLE) < 1


def _middle(width: int, height: int) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the square in the middle of an image."""
    side = round(MIDDLE * min(width, height))
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def _refused(width: int, height: int) -> Reason | None:
    """Why an image of this size is not decoded at all."""
    if width * height > MAX_PIXELS:
        return Reason.TOO_LARGE
    small, large = (width, height) if width < height else (height, width)
    if small < MIN_SIDE:
        return Reason.TOO_SMALL
    return Reason.ASPECT if large > MAX_ASPECT * small else None


def _scans(data: bytes) -> int:
    """Scans of a progressive JPEG, each of which walks over the whole image; 1 for any other."""
    at = 2
    while data[at : at + 1] == b"\xff" and len(data) > at + 4:
        if data[at + 1] in {0xC0, 0xC1, 0xDA}:
            return 1
        if data[at + 1] == 0xC2:
            return data.count(b"\xff\xda", at)
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return 1


def _mended(data: bytes) -> bytes:
    """A JPEG with a header that libjpeg does not warn about: no bytes between segments, numbers as the standard has."""
    kept, at = [data[:2]], 2
    while (begin := data.find(b"\xff", at)) >= 0:
        while data[begin + 1 : begin + 2] == b"\xff":
            begin += 1
        segment = bytearray(data[begin : begin + 2 + int.from_bytes(data[begin + 2 : begin + 4], "big")])
        at = begin + len(segment)
        if segment[4:9] == b"JFIF\0":
            segment[9:10] = b"\1"
        if segment[1:2] == b"\xda":
            sequential = not any(it[1:2] == b"\xc2" for it in kept)
            return b"".join([*kept, segment[:-3] + b"\0\x3f\0" if sequential else segment, data[at:]])
        kept.append(bytes(segment))
    return data
