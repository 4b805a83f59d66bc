"""Near-copies are found in one set of images; pictures that are merely alike are not."""

import numpy as np
import pytest
from support.photographs import CHANGES, photographs, strokes, thumbs

from ray_ns.corpora.twins import groups_of, twins, within
from ray_ns.images import leak_guard

FOUND = ("re-encoded", "shrunk", "enlarged", "squeezed", "mirrored")


@pytest.mark.parametrize("change", FOUND)
def test_a_near_copy_is_found_with_its_original(change: str) -> None:
    pictures = photographs(30, 0)
    copies = np.stack([leak_guard.thumbnail(CHANGES[change](it)) for it in pictures])
    expected = [[number, number + 30] for number in range(30)]
    assert twins(np.concatenate([thumbs(pictures), copies])).tolist() == expected


@pytest.mark.parametrize("kind", ["photographs", "alike from afar", "glyphs", "one colour"])
def test_other_pictures_are_no_twins(kind: str) -> None:
    pictures = {
        "photographs": lambda: thumbs(photographs(300, 1)),
        "alike from afar": lambda: np.concatenate([thumbs(photographs(60, seed, coarse=7)) for seed in (0, 1)]),
        "glyphs": lambda: thumbs([it.convert("RGB") for it in strokes(300, 2)]),
        "one colour": lambda: np.full((5, 32, 32, 3), 77, np.uint8),
    }[kind]()
    assert len(twins(pictures)) == 0


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_images_have_few_pairs(count: int) -> None:
    same = np.repeat(thumbs(photographs(1, 3)), count, 0)
    assert twins(same).tolist() == [[0, 1]] * (count == 2)


def test_pairs_make_groups_named_by_their_first_image() -> None:
    pairs = np.array([[1, 4], [4, 6], [2, 3]])
    assert groups_of(pairs, 8).tolist() == [0, 1, 2, 2, 1, 5, 1, 7]
    assert groups_of(np.empty((0, 2), np.int64), 3).tolist() == [0, 1, 2]
    assert within(pairs, [0, 1, 0, 0, 1, 0, 0, 0]).tolist() == [[1, 4], [2, 3]]
