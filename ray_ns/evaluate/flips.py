"""How often a network changes its mind within a sequence of near-equal images: flip rate and distance of the top 5.

Hendrycks & Dietterich 2019. A sequence of noise compares each frame with the first one, any other with the one before.
"""

from collections.abc import Mapping

import numpy as np

TOP = 5
# Flip rates of AlexNet on the published sequences, from the paper's table.
ALEXNET = {
    **{"gaussian_noise": 0.2365, "shot_noise": 0.3006, "motion_blur": 0.0930, "zoom_blur": 0.0594, "snow": 0.1193},
    **{"brightness": 0.0489, "translate": 0.1101, "rotate": 0.1310, "tilt": 0.0705, "scale": 0.2353},
}


def flips(top: np.ndarray, noise: bool) -> np.ndarray:
    """Of each sequence the share of frames whose most probable class is another, float (n,).

    ``top``: int (n, frames, k), the most probable classes first.
    """
    first = top[:, :, 0]
    before = first[:, :1] if noise else first[:, :-1]
    return (first[:, 1:] != before).mean(1)


def top5_distance(top: np.ndarray, noise: bool) -> np.ndarray:
    """Of each sequence how far its five most probable classes move, in ranks summed over the five, float (n,).

    A class that leaves them goes to rank 6. ``top``: int (n, frames, 5).
    """
    after = top[:, 1:]
    before = np.broadcast_to(top[:, :1], after.shape) if noise else top[:, :-1]
    same = before[..., :, None] == after[..., None, :]
    rank = np.where(same.any(-1), same.argmax(-1), TOP)
    return np.abs(rank - np.arange(TOP)).sum(-1).mean(1)


def mfr(rates: Mapping[str, float]) -> float:
    """The mean flip rate, 1.0 is AlexNet's: of the rates of all ten perturbations."""
    return float(np.mean([rates[name] / of for name, of in ALEXNET.items()]))
