"""Copies are found whatever was done to them; other pictures, simple ones too, are not taken for copies."""

import numpy as np
import pytest
from support.photographs import CHANGES, jpeg, photographs, strokes, thumbs

from ray_ns.images import leak_guard


@pytest.fixture(scope="module")
def guard() -> leak_guard.Guard:
    return leak_guard.Guard(thumbs(photographs(60, 0)))


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_found_with_its_original(guard: leak_guard.Guard, change: str) -> None:
    copies = np.stack([leak_guard.thumbnail(CHANGES[change](image)) for image in photographs(60, 0)])
    found = guard.copies(copies)
    assert len(found.rows) >= 59  # of 60: 0.99 is what is promised
    np.testing.assert_array_equal(found.of, found.rows)
    assert (found.scores <= 1).all()


def test_other_pictures_are_not_copies(guard: leak_guard.Guard) -> None:
    assert guard.score == leak_guard.COPY_SCORE
    assert len(guard.copies(thumbs(photographs(300, 1))).rows) == 0


def test_pictures_alike_from_afar_are_told_apart_by_their_details() -> None:
    kept, honest = thumbs(photographs(60, 0, coarse=7)), thumbs(photographs(60, 1, coarse=7))
    guard = leak_guard.Guard(kept)
    assert len(guard._candidates(honest)[0]) > 8
    assert len(guard.copies(honest).rows) == 0
    assert len(guard.copies(kept).rows) == 60


def test_among_simple_pictures_the_guard_asks_for_more_and_confuses_none() -> None:
    kept, honest = strokes(80, 2), strokes(100, 3)
    guard = leak_guard.Guard(thumbs(kept))
    assert guard.score > leak_guard.COPY_SCORE
    assert len(guard._candidates(thumbs(honest))[0]) > 100  # their hashes do collide
    assert len(guard.copies(thumbs(honest)).rows) <= 1
    again = np.stack([leak_guard.thumbnail(jpeg(image, 80)) for image in kept])
    found = guard.copies(again)
    assert len(found.rows) >= 79
    np.testing.assert_array_equal(found.of, found.rows)


def test_a_blank_picture_is_no_copy_even_of_a_blank_one() -> None:
    blank = np.stack([np.full((32, 32, 3), level, np.uint8) for level in (0, 128, 255)])
    guard = leak_guard.Guard(np.concatenate([blank, thumbs(photographs(5, 0))]))
    assert len(guard.copies(blank).rows) == 0


def test_nothing_to_keep_out_and_nothing_to_ask_find_nothing(guard: leak_guard.Guard) -> None:
    nothing = np.empty((0, 32, 32, 3), np.uint8)
    assert len(leak_guard.Guard(nothing).copies(thumbs(photographs(2, 0))).rows) == 0
    assert len(guard.copies(nothing).rows) == 0


def test_what_is_asked_together_does_not_matter(guard: leak_guard.Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = np.concatenate([thumbs(photographs(4, 1)), thumbs(photographs(60, 0))[:20]])
    together = guard.copies(asked)
    monkeypatch.setattr(leak_guard, "_CHUNK", 50_000)
    alone = [guard.copies(asked[row : row + 1]) for row in range(len(asked))]
    assert [row for row, it in enumerate(alone) if len(it.rows)] == together.rows.tolist()
    assert [it.of[0] for it in alone if len(it.of)] == together.of.tolist()


def test_a_mirrored_hash_is_the_hash_of_the_mirrored_image() -> None:
    some = thumbs(photographs(30, 4))
    difference = np.bitwise_count(leak_guard.hashes(some) ^ leak_guard._MIRROR ^ leak_guard.hashes(some[:, :, ::-1]))
    assert difference.max() == 0
