"""Copies are found whatever was done to them; other pictures, simple ones too, are not taken for copies."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from ray_ns.images import near

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
    return np.stack([near.thumbnail(jpeg(image, 95)) for image in images])


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


@pytest.fixture(scope="module")
def guard() -> near.Guard:
    return near.Guard(thumbs(photographs(60, 0)))


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_found_with_its_original(guard: near.Guard, change: str) -> None:
    copies = np.stack([near.thumbnail(CHANGES[change](image)) for image in photographs(60, 0)])
    found = guard.copies(copies)
    assert len(found.rows) >= 59  # of 60: 0.99 is what is promised
    np.testing.assert_array_equal(found.of, found.rows)
    assert (found.scores <= 1).all()


def test_other_pictures_are_not_copies(guard: near.Guard) -> None:
    assert guard.score == near.COPY_SCORE
    assert len(guard.copies(thumbs(photographs(300, 1))).rows) == 0


def test_pictures_alike_from_afar_are_told_apart_by_their_details() -> None:
    kept, honest = thumbs(photographs(60, 0, coarse=7)), thumbs(photographs(60, 1, coarse=7))
    guard = near.Guard(kept)
    assert len(guard._candidates(honest)[0]) > 8
    assert len(guard.copies(honest).rows) == 0
    assert len(guard.copies(kept).rows) == 60


def test_among_simple_pictures_the_guard_asks_for_more_and_confuses_none() -> None:
    kept, honest = strokes(80, 2), strokes(100, 3)
    guard = near.Guard(thumbs(kept))
    assert guard.score > near.COPY_SCORE
    assert len(guard._candidates(thumbs(honest))[0]) > 100  # their hashes do collide
    assert len(guard.copies(thumbs(honest)).rows) <= 1
    again = np.stack([near.thumbnail(jpeg(image, 80)) for image in kept])
    found = guard.copies(again)
    assert len(found.rows) >= 79
    np.testing.assert_array_equal(found.of, found.rows)


def test_a_blank_picture_is_no_copy_even_of_a_blank_one() -> None:
    blank = np.stack([np.full((32, 32, 3), level, np.uint8) for level in (0, 128, 255)])
    guard = near.Guard(np.concatenate([blank, thumbs(photographs(5, 0))]))
    assert len(guard.copies(blank).rows) == 0


def test_nothing_to_keep_out_and_nothing_to_ask_find_nothing(guard: near.Guard) -> None:
    nothing = np.empty((0, 32, 32, 3), np.uint8)
    assert len(near.Guard(nothing).copies(thumbs(photographs(2, 0))).rows) == 0
    assert len(guard.copies(nothing).rows) == 0


def test_what_is_asked_together_does_not_matter(guard: near.Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = np.concatenate([thumbs(photographs(4, 1)), thumbs(photographs(60, 0))[:20]])
    together = guard.copies(asked)
    monkeypatch.setattr(near, "_CHUNK", 50_000)
    alone = [guard.copies(asked[row : row + 1]) for row in range(len(asked))]
    assert [row for row, it in enumerate(alone) if len(it.rows)] == together.rows.tolist()
    assert [it.of[0] for it in alone if len(it.of)] == together.of.tolist()


def test_a_mirrored_hash_is_the_hash_of_the_mirrored_image() -> None:
    some = thumbs(photographs(30, 4))
    difference = np.bitwise_count(near.hashes(some) ^ near._MIRROR ^ near.hashes(some[:, :, ::-1]))
    assert difference.max() == 0
