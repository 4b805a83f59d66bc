"""Intervals of shares: how far a top-1 on so many images can be trusted."""

import math

Z = 1.959963984540054  # the normal quantile of a 95 % interval


def wilson(share: float, images: int) -> tuple[float, float]:
    """The 95 % score interval of ``share`` (0..1) of ``images`` (Wilson 1927, J. Am. Stat. Assoc. 22, 209-212).

    It stays within 0..1 and holds its level on few images, where share +- 1.96 standard errors does not. (0, 1) for no
    images.
    """
    if images == 0:
        return 0.0, 1.0
    scale = 1 + Z**2 / images
    middle = (share + Z**2 / (2 * images)) / scale
    half = Z / scale * math.sqrt(share * (1 - share) / images + Z**2 / (4 * images**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def difference(one: float, other: float, images: int) -> tuple[float, float]:
    """The 95 % interval of ``one - other``, shares (0..1) of ``images`` each, from Wilson's of both.

    Newcombe 1998, Statistics in Medicine 17, 873-890, method 10. It takes the two as if they were of different images;
    on the same images two networks err alike, and the true interval is mostly narrower.
    """
    (low, high), (other_low, other_high) = wilson(one, images), wilson(other, images)
    below = math.hypot(one - low, other_high - other)
    above = math.hypot(high - one, other - other_low)
    return one - other - below, one - other + above
