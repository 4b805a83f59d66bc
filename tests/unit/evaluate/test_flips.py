"""Flip rates and top-5 distances of sequences made by hand, and the sequences themselves."""

import numpy as np
import pytest
from timm.data import ImageNetInfo

from ray_ns.evaluate import perturbations
from ray_ns.evaluate.figures import Judged
from ray_ns.evaluate.flips import ALEXNET, flips, mfr, top5_distance
from ray_ns.evaluate.kinds import KINDS
from ray_ns.evaluate.perturbations import CIFAR, IMAGENET, TABLE, frames
from ray_ns.evaluate.suites import PERTURBATIONS, parse

OWN = ImageNetInfo().label_names()
# AlexNet's flip probabilities on the published sequences (Hendrycks & Dietterich 2019).
PUBLISHED = {
    **{"gaussian_noise": 0.2365, "shot_noise": 0.3006, "motion_blur": 0.0930, "zoom_blur": 0.0594, "snow": 0.1193},
    **{"brightness": 0.0489, "translate": 0.1101, "rotate": 0.1310, "tilt": 0.0705, "scale": 0.2353},
}


def sequence(*first: int) -> np.ndarray:
    """Of one image: frames whose most probable class is given, then four others that never change."""
    return np.array([[[it, 10, 11, 12, 13] for it in first]])


def test_noise_is_compared_with_the_first_frame_all_else_with_the_one_before() -> None:
    assert flips(sequence(1, 2, 2, 1), True).tolist() == pytest.approx([2 / 3])
    assert flips(sequence(1, 2, 2, 1), False).tolist() == pytest.approx([2 / 3])
    assert flips(sequence(1, 2, 2, 2), True).tolist() == [1.0]
    assert flips(sequence(1, 2, 2, 2), False).tolist() == pytest.approx([1 / 3])


def by_definition(before: list[int], after: list[int], classes: int) -> int:
    """The paper's double sum over whole rankings."""
    place = {it: rank for rank, it in enumerate(after, 1)}
    total = 0
    for i, it in enumerate(before[:5], 1):
        low, high = sorted((i, place[it]))
        total += sum(1 <= j - 1 <= 5 for j in range(low + 1, high + 1))
    return total


def test_the_distance_of_the_top_5_is_the_papers_sum() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        whole = [rng.permutation(9).tolist() for _ in range(2)]
        found = top5_distance(np.array([[it[:5] for it in whole]]), True)
        assert found.tolist() == [by_definition(*whole, 9)]
    same = np.array([[[0, 1, 2, 3, 4]] * 3 + [[1, 0, 2, 3, 4]]])
    assert top5_distance(same, False).tolist() == pytest.approx([2 / 3])


def test_the_mean_flip_rate_of_alexnet_is_one() -> None:
    assert mfr(PUBLISHED) == pytest.approx(1)
    assert [*ALEXNET] == [*TABLE]
    for name, of_alexnet in PUBLISHED.items():
        flipped = dict.fromkeys(TABLE, 0.0) | {name: 0.02}
        assert mfr(flipped) == pytest.approx(0.02 / of_alexnet / 10), name


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", TABLE)
def test_sequences_have_their_frames_and_are_keyed(name: str, channels: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 20, 20, channels)).astype(np.uint8)
    for of, counts in ((CIFAR, {"motion_blur": 21, "translate": 16}), (IMAGENET, {"translate": 41})):
        made = np.stack(list(frames(images, range(3), of, name)))
        assert made.shape == (counts.get(name, 31), *images.shape)
        assert made.dtype == np.uint8
        steps = np.abs(np.diff(made.astype(float), axis=0)).mean((1, 2, 3, 4))
        assert (steps > 0).mean() > 0.8, "a few flakes may stay where they are"
        if name in {*perturbations.NOISE, "zoom_blur"}:
            assert (made[0] == images).all()
        alone = np.stack(list(frames(images[1:2], [1], of, name)))
        assert (alone == made[:, 1:2]).all(), "whatever is beside it"


def test_an_untouched_frame_is_where_the_definition_has_it() -> None:
    images = np.random.default_rng(1).integers(0, 256, (2, 24, 24, 3)).astype(np.uint8)
    for name, at in (("brightness", 15), ("translate", 7), ("rotate", 15), ("scale", 15)):
        found = list(frames(images, range(2), CIFAR, name))[at]
        assert np.abs(found.astype(int) - images).max() <= 1, name
    right = list(frames(images, range(2), CIFAR, "translate"))[9]
    assert (right[:, :, 2:] == images[:, :, :-2]).all()
    assert (right[:, :, :2] == 0).all()
    turned = [it[0, :, :, 0] for it in frames(images, range(2), CIFAR, "rotate")]
    assert turned[0][0, 0] == turned[30][0, 0] == 0, "black beyond the edge"


def test_tilting_by_nothing_leaves_the_image_but_for_its_distance() -> None:
    images = np.zeros((1, 32, 32, 1), np.uint8)
    images[:, 12:20, 12:20] = 200
    middle = list(frames(images, [0], CIFAR, "tilt"))[15]
    assert np.abs(middle.astype(int) - images).mean() < 4
    assert middle.sum() == pytest.approx(images.sum(), rel=0.1)


def test_the_mean_flip_rate_of_sequences_made_by_hand() -> None:
    """Of 1,000 classes: the first image never flips; of noise the second one flips in 3 of 4 frames, else in 1 of 4."""
    top = np.concatenate([sequence(7, 7, 7, 7, 7), sequence(1, 1, 2, 2, 2)])
    judged = Judged(np.zeros(2, int), top[:, 0, 0], np.ones(2), np.zeros(2), top[:, 0], top)
    found = KINDS[PERTURBATIONS].figures({f"perturb:{IMAGENET}:{name}": judged for name in TABLE}, 1000, OWN)
    noise, others = 1 / 0.2365 + 1 / 0.3006, (0.0930, 0.0594, 0.1193, 0.0489, 0.1101, 0.1310, 0.0705, 0.2353)
    wanted = ((0.75 / 2) * noise + (0.25 / 2) * sum(1 / it for it in others)) / 10
    assert found["mfr"] == pytest.approx(wanted, abs=1e-6)
    assert found["flips"] == pytest.approx((2 * 0.375 + 8 * 0.125) / 10)
    # class 1 goes from rank 1 beyond the fifth; the distance is of ranks 1 to 5, beyond which nothing counts
    assert found["perturbations"]["snow"]["top5_distance"] == pytest.approx(5 / 4 / 2)
    assert found["perturbations"]["shot_noise"]["top5_distance"] == pytest.approx(3 * 5 / 4 / 2)
    distances = [it["top5_distance"] for it in found["perturbations"].values()]
    assert found["top5_distance"] == pytest.approx(np.mean(distances), abs=1e-6)
    assert KINDS[PERTURBATIONS].figures({f"perturb:{CIFAR}:{it}": judged for it in TABLE}, 1000, OWN)["mfr"] is None


def test_the_figures_are_of_readable_images_and_their_interval_of_images() -> None:
    (suite,) = parse("perturbations", 32, 3)
    label = np.array([1, 1, -1])
    top = np.concatenate([sequence(1, 2, 1), sequence(1, 1, 1), sequence(3, 4, 5)])
    judged = Judged(np.zeros(3, int), label, np.ones(3), np.zeros(3), top[:, 0], top)
    found = KINDS[PERTURBATIONS].figures(dict.fromkeys(suite.views, judged), 14, None)
    # the first image flips in both steps, against the frame before; against the first frame in one of two
    assert found["perturbations"]["snow"]["flips"] == 0.5
    assert found["perturbations"]["shot_noise"]["flips"] == 0.25
    assert found["flips"] == pytest.approx((8 * 0.5 + 2 * 0.25) / 10)
    assert (found["images"], found["unreadable"], found["mfr"], found["variant"]) == (3, 1, None, "cifar-1")
    assert found["perturbations"]["snow"]["top5_distance"] == pytest.approx(5 / 2)
    assert KINDS[PERTURBATIONS].values(dict.fromkeys(suite.views, judged)).tolist() == pytest.approx([0.9, 0])
