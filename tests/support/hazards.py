"""Image files that went wrong in every way a large pool knows, made by code, each with the outcome that is decided.

Also ``mutated``: a seeded stream of damaged JPEG, PNG and WebP files.
"""

import io
import random
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from ray_ns.images.decode import MAX_PIXELS, MAX_SCANS, Reason

SIDE = 24


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


def noisy(width: int = SIDE, height: int = SIDE, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, rows: bytes = b"", depth: int = 8, colour: int = 2, *before: bytes) -> bytes:
    """A PNG of these rows (with their filter bytes); ``before``: chunks in front of the pixels."""
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = [png_chunk(b"IHDR", head), *before, png_chunk(b"IDAT", zlib.compress(rows)), png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def flat_png(*before: bytes, after: bytes = b"") -> bytes:
    """A white PNG with further chunks before its pixels, or after them."""
    whole = png(SIDE, SIDE, (b"\x00" + b"\xff" * 3 * SIDE) * SIDE, 8, 2, *before)
    return whole[:-12] + after + whole[-12:]


def sixteen_bit_colour_png() -> bytes:
    return png(SIDE, SIDE, (b"\x00" + struct.pack(">3H", 60_000, 30_000, 100) * SIDE) * SIDE, depth=16)


def apng() -> bytes:
    frames = [Image.new("RGB", (SIDE, SIDE), name) for name in ("red", "blue")]
    return encoded(frames[0], "PNG", save_all=True, append_images=frames[1:])


def animated(kind: str, **options: Any) -> bytes:
    frames = [Image.new("RGB", (SIDE, SIDE), name) for name in ("red", "blue", "green")]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)


def jpeg_of_many_scans(width: int, height: int, scans: int) -> bytes:
    """A progressive JPEG whose last scan is there again and again: every one costs a walk over all its blocks."""
    data = encoded(Image.new("L", (width, height), 128), "JPEG", progressive=True)
    at = data.rindex(b"\xff\xda")
    return data[:at] + data[at:-2] * scans + data[-2:]


def transparent_palette() -> bytes:
    image = Image.new("P", (SIDE, SIDE), 0)
    image.putpalette([255, 0, 0, 0, 255, 0])
    return encoded(image, transparency=0)


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(noisy(32, SIDE), "JPEG", exif=exif)


def adobe_ycck() -> bytes:
    """A CMYK JPEG whose Adobe marker says YCCK."""
    data = encoded(Image.new("CMYK", (SIDE, SIDE), (0, 255, 255, 0)), "JPEG")
    at = data.index(b"Adobe")
    return data[: at + 11] + b"\x02" + data[at + 12 :]


def hazards() -> Mapping[str, tuple[bytes | None, Reason | None]]:
    """Each hazard by name: its bytes, and the reason it is refused for, or None where it is read."""
    jpeg, webp = encoded(noisy(), "JPEG", quality=90), encoded(noisy(), "WEBP")
    plain = encoded(noisy())
    text = zlib.compress(b"\x00" * 20_000_000)
    return {
        "null": (None, Reason.EMPTY),
        "no bytes": (b"", Reason.EMPTY),
        "zero bytes only": (bytes(4096), Reason.NOT_AN_IMAGE),
        "an error page": (b"<!DOCTYPE html><html><body>404</body></html>", Reason.NOT_AN_IMAGE),
        "a bare JPEG magic": (b"\xff\xd8\xff", Reason.NOT_AN_IMAGE),
        "null bytes before a JPEG": (bytes(16) + jpeg, Reason.NOT_AN_IMAGE),
        "SVG": (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', Reason.FORMAT),
        "EPS": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", Reason.FORMAT),
        "PDF": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", Reason.FORMAT),
        "HEIC": (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic", Reason.FORMAT),
        "float TIFF": (encoded(Image.new("F", (SIDE, SIDE), 0.5), "TIFF"), Reason.FORMAT),
        "PPM": (encoded(noisy(), "PPM"), Reason.FORMAT),
        "16-bit grey PNG": (encoded(Image.fromarray(np.full((SIDE, SIDE), 40_000, np.uint16))), Reason.BIT_DEPTH),
        "16-bit colour PNG": (sixteen_bit_colour_png(), None),
        "half a JPEG": (jpeg[: len(jpeg) // 2], Reason.TRUNCATED),
        "a JPEG two bytes short": (jpeg[:-2], Reason.TRUNCATED),
        "half a PNG": (plain[: len(plain) // 2], Reason.TRUNCATED),
        "half a WebP": (webp[: len(webp) // 2], Reason.TRUNCATED),
        "half a GIF": (encoded(noisy(), "GIF")[:1000], Reason.TRUNCATED),
        "a PNG without pixels": (png(100, 100), Reason.TRUNCATED),
        "a JPEG that ends in null bytes": (jpeg[: len(jpeg) // 2] + bytes(len(jpeg) // 2), Reason.TRUNCATED),
        "a PNG of 3,600 MP in its header": (png(60_000, 60_000), Reason.TOO_LARGE),
        "a PNG of just too many pixels": (png(10_000, MAX_PIXELS // 10_000 + 1), Reason.TOO_LARGE),
        "a JPEG of 4,290 MP in its header": (jpeg_resized(jpeg, 65_500, 65_500), Reason.TOO_LARGE),
        "a PNG text bomb": (flat_png(png_chunk(b"zTXt", b"bomb\x00\x00" + text)), Reason.TOO_LARGE),
        "a PNG text bomb behind the pixels": (
            flat_png(after=png_chunk(b"iTXt", b"bomb\x00\x01\x00\x00\x00" + text)),
            Reason.TOO_LARGE,
        ),
        "a PNG profile bomb": (flat_png(png_chunk(b"iCCP", b"bomb\x00\x00" + text)), Reason.TOO_LARGE),
        "a JPEG of absurdly many scans": (jpeg_of_many_scans(1600, 1200, MAX_SCANS), Reason.TOO_SLOW),
        "one pixel": (encoded(noisy(1, 1)), Reason.TOO_SMALL),
        "one pixel as JPEG": (encoded(noisy(1, 1), "JPEG"), Reason.TOO_SMALL),
        "a line": (encoded(noisy(4000, 3)), Reason.TOO_SMALL),
        "a banner": (encoded(noisy(10 * 21, 10)), Reason.ASPECT),
        "a banner as JPEG": (encoded(noisy(10, 10 * 21), "JPEG"), Reason.ASPECT),
        "a long but honest picture": (encoded(noisy(10 * 20, 10)), None),
        "animated GIF": (animated("GIF"), None),
        "animated WebP": (animated("WEBP", lossless=True), None),
        "APNG": (apng(), None),
        "transparent palette": (transparent_palette(), None),
        "nothing but transparent": (encoded(Image.new("RGBA", (SIDE, SIDE), (9, 9, 9, 0))), None),
        "alpha in WebP": (encoded(Image.new("RGBA", (SIDE, SIDE), (9, 9, 9, 0)), "WEBP", lossless=True), None),
        "CMYK JPEG": (encoded(Image.new("CMYK", (SIDE, SIDE), (0, 255, 255, 0)), "JPEG"), None),
        "YCCK JPEG": (adobe_ycck(), None),
        "turned by EXIF": (turned(), None),
        "progressive JPEG": (encoded(noisy(64, 48), "JPEG", progressive=True), None),
        "several pictures in one JPEG": (
            encoded(noisy(), "MPO", save_all=True, append_images=[Image.new("RGB", (SIDE, SIDE))]),
            None,
        ),
        "a damaged ICC profile": (encoded(noisy(), "JPEG", icc_profile=b"no profile at all" * 9), None),
        "garbage behind a JPEG": (jpeg + b"PK\x03\x04" * 500, None),
        "garbage behind a PNG": (plain + bytes(5000), None),
        "text in a PNG": (encoded(noisy(), pnginfo=_text()), None),
        "one bit": (encoded(noisy(mode="1")), None),
        "16-bit BMP": (bmp_555(), None),
    }


def jpeg_resized(data: bytes, width: int, height: int) -> bytes:
    """The same JPEG with another size in its header."""
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def bmp_555() -> bytes:
    """An uncompressed BMP of 15 bits per pixel, all red."""
    pixels = struct.pack("<H", 0x7C00) * SIDE * SIDE
    head = struct.pack("<IiiHHIIiiII", 40, SIDE, SIDE, 1, 16, 0, len(pixels), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(pixels), 0, 0, 54) + head + pixels


def _text() -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "a harmless word " * 100, zip=True)
    return info


def mutated(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """``count`` files (format, bytes): bits flipped, cut off, spliced with another file, headers overwritten."""
    draw = random.Random(seed)
    picture = noisy(40, 30)
    smooth = picture.resize((64, 48), Image.Resampling.BICUBIC)
    whole = [
        ("JPEG", encoded(smooth, "JPEG", quality=85)),
        ("JPEG", encoded(smooth, "JPEG", progressive=True)),
        ("JPEG", encoded(smooth.convert("CMYK"), "JPEG")),
        ("PNG", encoded(smooth)),
        ("PNG", encoded(smooth.convert("P"), transparency=3)),
        ("PNG", encoded(smooth.convert("LA"))),
        ("WEBP", encoded(smooth, "WEBP")),
        ("WEBP", encoded(smooth.convert("RGBA"), "WEBP", lossless=True)),
        ("WEBP", animated("WEBP")),
    ]
    for number in range(count):
        kind, source = whole[number % len(whole)]
        data = bytearray(source)
        for _ in range(draw.choice([1, 1, 2, 4, 16])):
            at = draw.randrange(len(data))
            match draw.randrange(6):
                case 0 | 1:
                    data[at] ^= 1 << draw.randrange(8)
                case 2:
                    data[draw.randrange(min(64, len(data)))] = draw.choice([0, 1, 0x7F, 0x80, 0xFF])
                case 3:
                    data[at : at + draw.randrange(1, 20)] = draw.randbytes(draw.randrange(1, 20))
                case 4:
                    other = draw.choice(whole)[1]
                    begin = draw.randrange(len(other))
                    data[at : at + 64] = other[begin : begin + 64]
                case 5 if draw.random() < 0.2:
                    del data[max(at, 1) :]
        yield kind, _with_checksums(bytes(data)) if kind == "PNG" and draw.random() < 0.5 else bytes(data)


def _with_checksums(data: bytes) -> bytes:
    """The PNG with its chunks' checksums made right, so that damage reaches the decoder."""
    fixed, at = bytearray(data), 8
    while at + 12 <= len(fixed):
        (length,) = struct.unpack(">I", fixed[at : at + 4])
        end = at + 8 + length
        if end + 4 > len(fixed):
            break
        fixed[end : end + 4] = struct.pack(">I", zlib.crc32(fixed[at + 4 : end]))
        at = end + 4
    return bytes(fixed)
