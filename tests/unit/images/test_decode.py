import hashlib
import io
from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images
from support import hazards

from ray_ns.config import Data
from ray_ns.images import decode as images_decode
from ray_ns.images.decode import Decode, Reason
from ray_ns.models.files import fed

Encode = Callable[..., bytes]
SIZE = 8
rgb = Decode(SIZE, 3)
grey = Decode(SIZE, 1)
HAZARDS = hazards.hazards()


@pytest.fixture(scope="module")
def noisy() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8))


@pytest.mark.parametrize("name", HAZARDS)
def test_every_hazard_has_the_outcome_that_is_decided(name: str) -> None:
    data, reason = HAZARDS[name]
    for decode in (rgb, grey):
        outcome = decode(data)
        if reason is not None:
            assert outcome is reason
        else:
            assert isinstance(outcome, np.ndarray), outcome
            assert outcome.shape == (SIZE, SIZE, decode.channels)


RED, WHITE = [255, 0, 0], [255, 255, 255]


@pytest.mark.parametrize(
    ("name", "colour"),
    [
        ("16-bit colour PNG", [60_000 >> 8, 30_000 >> 8, 0]),
        ("animated GIF", RED),
        ("animated WebP", RED),
        ("APNG", RED),
        ("transparent palette", WHITE),
        ("nothing but transparent", WHITE),
        ("alpha in WebP", WHITE),
        ("CMYK JPEG", RED),
        ("16-bit BMP", RED),
    ],
)
def test_what_is_read_has_the_colour_a_viewer_shows(name: str, colour: list[int]) -> None:
    pixels = rgb(HAZARDS[name][0])
    assert isinstance(pixels, np.ndarray)
    np.testing.assert_allclose(pixels[4, 4], colour, atol=3)


def test_garbage_behind_an_image_and_further_pictures_change_nothing(encode: Encode) -> None:
    jpeg = encode(hazards.noisy(), "JPEG", quality=90)
    np.testing.assert_array_equal(rgb(HAZARDS["garbage behind a JPEG"][0]), rgb(jpeg))
    np.testing.assert_array_equal(rgb(HAZARDS["a damaged ICC profile"][0]), rgb(encode(hazards.noisy(), "JPEG")))
    several = rgb(HAZARDS["several pictures in one JPEG"][0])
    np.testing.assert_array_equal(several, rgb(encode(hazards.noisy(), "JPEG")))


@pytest.mark.parametrize("markup", [b"<html><body><svg>", b"<!DOCTYPE html><svg >", b"hello <svg>", b"<" * 2000])
def test_a_page_with_a_drawing_in_it_is_no_drawing(markup: bytes) -> None:
    assert rgb(markup) is Reason.NOT_AN_IMAGE


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_a_file_cut_at_any_byte_is_refused_or_whole(encode: Encode, kind: str) -> None:
    """What no pixel depends on may be missing, such as the checksum of a PNG's pixels or the end mark of a JPEG."""
    whole = encode(Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)), kind)
    pixels = rgb(whole)
    assert isinstance(pixels, np.ndarray)
    for length in range(1, len(whole)):
        outcome = rgb(whole[:length])
        if isinstance(outcome, Reason):
            assert outcome in {Reason.TRUNCATED, Reason.NOT_AN_IMAGE}
        else:
            assert len(whole) - length <= 20
            assert np.abs(outcome.astype(int) - pixels).max() <= 2, "not the same to the last pixel"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP"])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.7, 0.9])
def test_a_truncated_image_is_never_half_an_image(encode: Encode, noisy: Image.Image, kind: str, share: float) -> None:
    data = encode(noisy, kind)
    assert isinstance(rgb(data), np.ndarray)
    assert rgb(data[: int(share * len(data))]) in {Reason.TRUNCATED, Reason.NOT_AN_IMAGE}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
@pytest.mark.parametrize("side", [SIZE, 9, 50])
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


def test_exif_orientation_is_ignored(encode: Encode, noisy: Image.Image) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    np.testing.assert_array_equal(rgb(encode(noisy, exif=turned)), rgb(encode(noisy)))


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.chaos)])
def test_mutated_files_never_raise(count: int, record_property: Callable[[str, object], None]) -> None:
    outcomes: Counter[str] = Counter()
    for kind, data in hazards.mutated(count, seed=0):
        outcome = rgb(data)
        if isinstance(outcome, Reason):
            outcomes[f"{kind} {outcome}"] += 1
        else:
            assert outcome.shape == (SIZE, SIZE, 3)
            assert outcome.dtype == np.uint8
            outcomes[f"{kind} pixels"] += 1
    record_property("outcomes", dict(outcomes))
    assert outcomes.total() == count
    for kind in ("JPEG", "PNG", "WEBP"):
        assert outcomes[f"{kind} pixels"] > count / 50
        assert outcomes[f"{kind} truncated"] > count / 50


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize(("width", "height", "box"), [(64, 48, (11, 3, 53, 45)), (33, 64, (2, 17, 31, 46))])
def test_a_crop_is_the_middle_seven_eighths_of_the_short_side(
    encode: Encode, kind: str, width: int, height: int, box: tuple[int, int, int, int]
) -> None:
    spots = np.random.default_rng(1).integers(0, 256, (4, 4, 3), np.uint8)
    smooth = Image.fromarray(spots).resize((width, height))
    data = encode(smooth, kind, **({"quality": 95, "subsampling": 0} if kind == "JPEG" else {}))
    wanted = smooth.crop(box).resize((16, 16), Image.Resampling.BILINEAR)
    found = Decode(16, 3, "crop")(data)
    assert isinstance(found, np.ndarray)
    np.testing.assert_allclose(found, np.asarray(wanted), atol=0 if kind == "PNG" else 8)
    squashed = Decode(16, 3)(data)
    assert np.abs(squashed.astype(int) - found).max() > 8


@cache
def photographs() -> list[tuple[str, tuple[int, int], bytes]]:
    """Views of real photographs: how they are encoded, their shape, and the bytes."""
    found = []
    for pixels in load_sample_images().images:
        for shape in ((480, 320), (320, 480), (641, 427), (1200, 800), (97, 65)):
            view = Image.fromarray(pixels).resize(shape, Image.Resampling.BICUBIC)
            found.append(("PNG", shape, hazards.encoded(view, "PNG")))
            found.append(("JPEG", shape, hazards.encoded(view, "JPEG", quality=90)))
    return found


RULES = [
    {"size": 64, "interpolation": "bicubic"},
    {"size": 224, "fit": "crop", "interpolation": "bicubic"},
    {"size": 48, "fit": "crop", "interpolation": "bicubic"},
    {"size": 240, "fit": "crop", "crop_share": "paper", "interpolation": "bicubic"},
    {"size": 48, "fit": "crop", "crop_share": "paper", "interpolation": "bilinear"},
    {"size": 64, "fit": "crop", "crop_share": 0.5, "interpolation": "bicubic"},
    {"size": 96, "fit": "crop", "crop_share": 1.0, "interpolation": "bicubic"},
]


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_an_image_is_resized_and_cropped_as_timm_does_it(rule: dict[str, Any]) -> None:
    """Pillow's own resize in one step for timm's two: a level beside at most. Scaled JPEGs differ by a few levels."""
    from timm.data import create_transform

    channels = 1 if rule["size"] == 240 else 3
    per_channel = {"channels": channels, "mean": [0.0] * channels, "std": [1.0] * channels}
    data = Data.model_validate({"labelled": "l", "pool": "p", **rule, **per_channel})
    timms = create_transform(**fed(data))
    decode = Decode.of(data)
    for kind, shape, encoded in photographs():
        image = Image.open(io.BytesIO(encoded)).convert("RGB" if channels == 3 else "L")
        wanted = 255 * timms(image).permute(1, 2, 0).numpy()
        found = decode(encoded)
        assert isinstance(found, np.ndarray)
        beside = np.abs(found - wanted)
        assert np.percentile(beside, 99) <= (1.01 if kind == "PNG" else 8), (kind, shape)
        assert beside.mean() <= (0.3 if kind == "PNG" else 1.5), (kind, shape)


@pytest.mark.parametrize(
    ("fit", "pixels"), [("squash", "2617cd667756989e"), ("crop", "d32dfab09af3f041"), ("none", "fed4a31b3ac352fa")]
)
def test_the_usual_rules_have_the_pixels_that_they_always_had(fit: Any, pixels: str) -> None:
    """Labels of runs that exist are made of these pixels: where they change, ``VERSION`` has to."""
    decode = Decode(96, 3, fit)
    found = [cast(np.ndarray, decode(encoded)).tobytes() for kind, _, encoded in photographs() if kind == "PNG"]
    assert (images_decode.VERSION, hashlib.sha256(b"".join(found)).hexdigest()[:16]) == ("decode-4", pixels)


@pytest.mark.parametrize("name", HAZARDS)
def test_a_crop_refuses_what_is_refused_anyway(name: str) -> None:
    data, reason = HAZARDS[name]
    for decode in (Decode(SIZE, 3, "crop"), Decode(SIZE, 3, "crop", SIZE + 32, "bicubic")):
        outcome = decode(data)
        assert outcome is reason if reason is not None else outcome.shape == (SIZE, SIZE, 3)


JPEGS = {
    "baseline": {"quality": 90},
    "progressive": {"progressive": True},
    "optimised": {"optimize": True},
    "4:4:4": {"subsampling": 0},
    "restart markers": {"restart_marker_blocks": 10},
    "grey": {},
    "CMYK": {},
}


def photograph(kind: str) -> bytes:
    """A JPEG of that kind whose pixels are smooth and differ everywhere."""
    small = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8))
    mode = {"grey": "L", "CMYK": "CMYK"}.get(kind, "RGB")
    return hazards.encoded(small.resize((320, 240), Image.Resampling.BICUBIC).convert(mode), "JPEG", **JPEGS[kind])


HALF_CLOSED = {
    "cut and closed with an end mark": lambda data, at: data[:at] + b"\xff\xd9",
    "bytes zeroed": lambda data, at: data[: at // 2] + bytes(at // 2) + data[at:],
    "bytes missing": lambda data, at: data[: at - 1000] + data[at:],
    "zeros to the end": lambda data, at: data[:at] + bytes(len(data) - 2 - at) + data[-2:],
    "no end mark": lambda data, at: data[:-2],
}


@pytest.mark.parametrize("share", [0.4, 0.6, 0.8])
@pytest.mark.parametrize("damage", HALF_CLOSED)
@pytest.mark.parametrize("kind", JPEGS)
def test_a_jpeg_whose_pixels_are_not_all_there_is_truncated_though_it_has_an_end(
    kind: str, damage: str, share: float
) -> None:
    data = photograph(kind)
    assert isinstance(rgb(data), np.ndarray)
    assert rgb(HALF_CLOSED[damage](data, int(share * len(data)))) is Reason.TRUNCATED


def _revision(data: bytes) -> bytes:
    return data.replace(b"JFIF\0\1\1", b"JFIF\0\0\0")


def _parameters(data: bytes) -> bytes:
    """A baseline JPEG whose pixels claim the coefficients 0 .. 5, as some cameras write it; they are not looked at."""
    at = data.index(b"\xff\xda")
    end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return data[: end - 2] + b"\x05" + data[end - 1 :]


def _between(data: bytes) -> bytes:
    """Bytes between the segments of the header, as some editors leave them."""
    at = data.index(b"\xff\xdb")
    return data[:at] + b"\0\1\2" + data[at:]


def _behind(data: bytes) -> bytes:
    return data + b"\0PK\3\4" * 100


@pytest.mark.parametrize("oddity", [_revision, _parameters, _between, _behind])
@pytest.mark.parametrize("kind", ["baseline", "progressive", "grey", "restart markers"])
def test_a_jpeg_with_an_odd_header_is_read_and_its_damage_is_seen_all_the_same(
    kind: str, oddity: Callable[[bytes], bytes]
) -> None:
    data = photograph(kind)
    if kind == "progressive" and oddity is _parameters:
        assert rgb(_parameters(data)) is Reason.TRUNCATED  # here they mean something
        return
    odd = oddity(data)
    assert odd != data
    np.testing.assert_array_equal(rgb(odd), rgb(data))
    cut = oddity(data[: len(data) // 2] + b"\xff\xd9")
    assert rgb(cut) is Reason.TRUNCATED


def test_more_bytes_than_any_image_needs_are_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    data = photograph("baseline")
    monkeypatch.setattr(images_decode, "MAX_BYTES", len(data))
    assert isinstance(rgb(data), np.ndarray)
    monkeypatch.setattr(images_decode, "MAX_BYTES", len(data) - 1)
    assert rgb(data) is Reason.TOO_LARGE
    assert rgb(images_decode.stand_in("a/\udcff.jpg")) is Reason.TOO_LARGE
    assert images_decode.stand_in("a.jpg") != images_decode.stand_in("b.jpg")
