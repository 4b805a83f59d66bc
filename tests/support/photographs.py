"""Pictures to tell copies from: photograph-like ones, glyphs, and what people do to a picture."""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance

from ray_ns.images import leak_guard

SIDE = 96


def photographs(count: int, seed: int, coarse: int | None = None) -> list[Image.Image]:
    """Pictures with power at all scales, as photographs have: each different, in its details alone if ``coarse``."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        pixels = np.full((SIDE, SIDE, 3), 128.0)
        for side in (3, 6, 12, 24, 48):
            if coarse is not None:
                rng = np.random.default_rng((coarse if side < 12 else seed, number, side))
            noise = rng.integers(0, 256, (side, side, 3)).astype(np.uint8)
            smooth = Image.fromarray(noise).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            pixels += (np.asarray(smooth, float) - 128) * (1.5 / side**0.7)
        found.append(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)))
    return found


def strokes(count: int, seed: int) -> list[Image.Image]:
    """Glyphs: two strokes of the same width on black, their ends a little different each time."""
    from PIL import ImageDraw

    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        image = Image.new("L", (28, 28))
        draw = ImageDraw.Draw(image)
        for begin, end in (((8, 6), (19, 8)), ((18, 7), (11, 22))):
            ends = [tuple(float(it) for it in np.array(point) + rng.normal(0, 2.0, 2)) for point in (begin, end)]
            draw.line(ends, fill=255, width=3)
        found.append(image)
    return found


def jpeg(image: Image.Image, quality: int = 85) -> bytes:
    sink = io.BytesIO()
    image.save(sink, "JPEG", quality=quality)
    return sink.getvalue()


def thumbs(images: list[Image.Image]) -> np.ndarray:
    return np.stack([leak_guard.thumbnail(jpeg(image, 95)) for image in images])


def cropped(image: Image.Image) -> Image.Image:
    width, height = image.size
    return image.crop((round(0.08 * width), round(0.02 * height), width, round(0.95 * height)))


CHANGES: dict[str, Callable[[Image.Image], bytes]] = {
    "re-encoded": lambda image: jpeg(image, 40),
    "shrunk": lambda image: jpeg(image.resize((48, 48))),
    "enlarged": lambda image: jpeg(image.resize((200, 200))),
    "squeezed": lambda image: jpeg(image.resize((120, 80))),
    "mirrored": lambda image: jpeg(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
    "cropped": lambda image: jpeg(cropped(image)),
    "brighter": lambda image: jpeg(ImageEnhance.Brightness(image).enhance(1.15)),
    "darker": lambda image: jpeg(ImageEnhance.Brightness(image).enhance(0.85)),
    "mirrored, cropped, shrunk": lambda image: jpeg(
        cropped(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)).resize((60, 60))
    ),
}
