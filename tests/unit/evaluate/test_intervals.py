"""Intervals of shares, beside published figures and drawn samples."""

import numpy as np
import pytest

from ray_ns.evaluate.intervals import difference, wilson


@pytest.mark.parametrize(
    ("share", "images", "low", "high"),
    [  # Newcombe 1998, Statistics in Medicine 17, 857-872, table I, method 3
        (81 / 263, 263, 0.2553, 0.3662),
        (15 / 148, 148, 0.0624, 0.1605),
        (0 / 20, 20, 0.0, 0.1611),
        (1 / 29, 29, 0.0061, 0.1718),
    ],
)
def test_wilsons_interval_is_the_published_one(share: float, images: int, low: float, high: float) -> None:
    assert wilson(share, images) == pytest.approx((low, high), abs=5e-5)


def test_wilsons_interval_without_images_says_nothing() -> None:
    assert wilson(0.0, 0) == (0, 1)


@pytest.mark.parametrize(
    ("one", "other", "images", "low", "high"),
    [  # Newcombe 1998, Statistics in Medicine 17, 873-890, table II, method 10, of samples of one size
        (10 / 10, 0 / 10, 10, 0.6075, 1.0),
        (0 / 10, 0 / 10, 10, -0.2775, 0.2775),
        (10 / 10, 10 / 10, 10, -0.2775, 0.2775),
    ],
)
def test_the_interval_of_a_difference_is_the_published_one(
    one: float, other: float, images: int, low: float, high: float
) -> None:
    assert difference(one, other, images) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("true", "images"), [(0.5, 50), (0.9, 100), (0.97, 200), (0.99, 1000)])
def test_it_holds_the_truth_about_95_times_of_100(rng: np.random.Generator, true: float, images: int) -> None:
    drawn = rng.binomial(images, true, 4000) / images
    inside = [low <= true <= high for low, high in (wilson(it, images) for it in drawn)]
    assert 0.93 < np.mean(inside) < 0.98
    others = rng.binomial(images, true, 4000) / images
    none = [low <= 0 <= high for low, high in (difference(a, b, images) for a, b in zip(drawn, others, strict=True))]
    assert 0.93 < np.mean(none) < 0.985
