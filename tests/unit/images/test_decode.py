import random
import struct
import zlib
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from ray_ns.images.decode import MAX_PIXELS, Decode, Reason

Encode = Callable[..., bytes]
SIZE = 8
rgb = Decode(SIZE, 3)
grey = Decode(SIZE, 1)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims to be of that size and holds no pixels at all."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def noisy() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (None, Reason.EMPTY),
        (b"", Reason.EMPTY),
        (b"\x00", Reason.NOT_AN_IMAGE),
        (b"hello", Reason.NOT_AN_IMAGE),
        (b"<!DOCTYPE html><html><body>404</body></html>", Reason.NOT_AN_IMAGE),
        (b'<svg xmlns="http://www.w3.org/2000/svg"><rect width="9" height="9"/></svg>', Reason.NOT_AN_IMAGE),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", Reason.NOT_AN_IMAGE),
        (b"\x89PNG\r\n\x1a\n", Reason.NOT_AN_IMAGE),
        (b"\xff\xd8\xff", Reason.NOT_AN_IMAGE),
        (png_header(60_000, 60_000), Reason.TOO_LARGE),
        (png_header(10_000, MAX_PIXELS // 10_000 + 1), Reason.TOO_LARGE),
        (png_header(100, 100), Reason.TRUNCATED),
    ],
    ids=[
        "null",
        "0 bytes",
        "1 byte",
        "text",
        "html",
        "svg",
        "eps",
        "png magic",
        "jpeg magic",
        "bomb",
        "big",
        "no pixels",
    ],
)
def test_bytes_that_are_no_image_have_their_reason(data: bytes | None, reason: Reason) -> None:
    assert rgb(data) is reason
    assert grey(data) is reason


def test_a_format_off_the_list_is_not_an_image(encode: Encode, noisy: Image.Image) -> None:
    assert rgb(encode(noisy, "TIFF")) is Reason.NOT_AN_IMAGE
    assert rgb(encode(noisy, "PPM")) is Reason.NOT_AN_IMAGE


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP"])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.7, 0.9])
def test_a_truncated_image_is_never_half_an_image(encode: Encode, noisy: Image.Image, kind: str, share: float) -> None:
    data = encode(noisy, kind)
    assert isinstance(rgb(data), np.ndarray)
    assert rgb(data[: int(share * len(data))]) in {Reason.TRUNCATED, Reason.NOT_AN_IMAGE}


def test_sixteen_bit_grey_is_refused_for_its_depth(encode: Encode) -> None:
    assert rgb(encode(np.full((9, 9), 40_000, np.uint16))) is Reason.BIT_DEPTH


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
@pytest.mark.parametrize("side", [1, SIZE, 50])
@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_uint8_of_the_size_and_channels_asked_for(
    encode: Encode, kind: str, side: int, channels: int
) -> None:
    pixels = Decode(SIZE, channels)(encode(Image.new("RGB", (side, side + 3), (200, 200, 200)), kind))
    assert isinstance(pixels, np.ndarray)
    assert pixels.shape == (SIZE, SIZE, channels)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - 200).max() <= 2


def test_pixels_of_the_right_size_are_untouched(encode: Encode, rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    np.testing.assert_array_equal(rgb(encode(pixels)), pixels)
    np.testing.assert_array_equal(grey(encode(pixels[..., 0])), pixels[..., :1])


def test_shrinking_is_antialiased(encode: Encode) -> None:
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    pixels = grey(encode(board))
    assert isinstance(pixels, np.ndarray)
    assert np.abs(pixels.astype(int) - 127).max() < 20


def test_rgba_is_composited_on_white(encode: Encode) -> None:
    image = np.zeros((SIZE, SIZE, 4), np.uint8)
    image[..., 0] = 200
    image[0, :, 3], image[1, :, 3] = 255, 128
    pixels = rgb(encode(image))
    assert isinstance(pixels, np.ndarray)
    assert pixels[0, 0].tolist() == [200, 0, 0]
    assert pixels[7, 0].tolist() == [255, 255, 255]
    np.testing.assert_allclose(pixels[1, 0], [227, 127, 127], atol=1)


def test_a_transparent_palette_entry_is_white(encode: Encode) -> None:
    image = Image.new("P", (SIZE, SIZE), 0)
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((3, 3), 1)
    pixels = rgb(encode(image, transparency=0))
    assert isinstance(pixels, np.ndarray)
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[3, 3].tolist() == [0, 255, 0]


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [("LA", (0, 128), [127] * 3), ("L", 7, [7] * 3), ("1", 1, [255] * 3), ("RGB", (1, 2, 3), [1, 2, 3])],
)
def test_every_png_mode_becomes_rgb(encode: Encode, mode: str, colour: object, expected: list[int]) -> None:
    pixels = rgb(encode(Image.new(mode, (SIZE, SIZE), colour)))  # type: ignore[arg-type]
    assert isinstance(pixels, np.ndarray)
    assert pixels[4, 4].tolist() == expected


def test_a_cmyk_jpeg_becomes_rgb(encode: Encode) -> None:
    pixels = rgb(encode(Image.new("CMYK", (SIZE, SIZE), (0, 255, 255, 0)), "JPEG"))
    assert isinstance(pixels, np.ndarray)
    np.testing.assert_allclose(pixels[4, 4], [255, 0, 0], atol=3)


def test_the_first_frame_of_an_animation_counts(encode: Encode) -> None:
    red, blue = (Image.new("RGB", (SIZE, SIZE), name) for name in ("red", "blue"))
    for kind, options in (("GIF", {}), ("WEBP", {"lossless": True})):
        pixels = rgb(encode(red, kind, save_all=True, append_images=[blue], **options))
        assert isinstance(pixels, np.ndarray)
        assert pixels[0, 0].tolist() == [255, 0, 0], kind


def test_exif_orientation_is_ignored(encode: Encode, noisy: Image.Image) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    np.testing.assert_array_equal(rgb(encode(noisy, exif=turned)), rgb(encode(noisy)))


def test_mutated_images_never_raise(encode: Encode, noisy: Image.Image) -> None:
    draw = random.Random(0)
    seeds = [encode(noisy, kind) for kind in ("PNG", "JPEG", "WEBP")]
    outcomes: Counter[str] = Counter()
    for number in range(600):
        data = bytearray(seeds[number % 3])
        for _ in range(draw.randint(1, 4)):
            at = draw.randrange(len(data))
            match draw.randrange(4):
                case 0:
                    data[at] ^= 1 << draw.randrange(8)
                case 1:
                    del data[at : at + draw.randrange(1, 20)]
                case 2:
                    data[at:at] = draw.randbytes(8)
                case 3 if number % 5 == 0:
                    del data[max(at, 1) :]
        pixels = rgb(bytes(data))
        assert isinstance(pixels, Reason) or (pixels.shape == (SIZE, SIZE, 3) and pixels.dtype == np.uint8)
        outcomes[pixels if isinstance(pixels, Reason) else "pixels"] += 1
    assert outcomes["pixels"] > 20
    assert outcomes[Reason.TRUNCATED] > 100, outcomes
