"""Near-copies within one set of images: re-encoded, resized or mirrored ones, but no strong crops.

Every image is compared with every other: first as 8 x 8 grey pixels, then as 32 x 32 colour pixels with and without
their low frequencies. (The guard of an ingest, ``images.leak_guard``, finds crops too, and must estimate its
threshold.) Among a thousand different handwritten digits one pair passes. Photographs of the same sky pass the first
comparison and fail the last. A wrong pair costs little: its images merely stay on the same side of the hold-out.
"""

from collections.abc import Sequence

import numpy as np

from ray_ns.images.leak_guard import LUMA, SIDE, detail, score

MOST = 50_000  # images compared at most, which takes half a minute
GREY, COLOUR, DETAIL = 0.995, 0.85, 0.5  # the least correlations of twins
FLAT = 4.0  # standard deviation, in grey levels, below which an image is too flat to compare
_COARSE = 8
_ROWS = 512  # images compared with all others at once
_EACH = 8  # candidates per image that are compared in colour: the most alike


def twins(thumbs: np.ndarray) -> np.ndarray:
    """Pairs of near-copies among ``thumbs``, uint8 (n, 32, 32, 3): their numbers, int64 (pairs, 2), ascending."""
    blocks = (-1, _COARSE, SIDE // _COARSE, _COARSE, SIDE // _COARSE)
    parts = [(thumbs[at : at + _ROWS] @ LUMA).reshape(blocks).mean((2, 4)) for at in range(0, len(thumbs), _ROWS)]
    coarse = np.concatenate([np.empty((0, _COARSE, _COARSE), np.float32), *parts])
    flat = coarse.std((1, 2)) < FLAT
    straight, mirrored = (_centred(it) for it in (coarse, coarse[:, :, ::-1]))
    straight[flat] = 0
    found = [np.empty((0, 2), np.int64)]
    for begin in range(0, len(thumbs), _ROWS):
        for seen, flipped in ((straight, False), (mirrored, True)):
            alike = seen[begin : begin + _ROWS] @ straight.T
            rows, of = np.nonzero(alike >= GREY)
            order = np.lexsort((of, -alike[rows, of], rows))
            rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
            chosen = order[rank <= _EACH]  # one more: one of them may be the image itself
            pairs = np.stack([begin + rows[chosen], of[chosen]], 1)
            found.append(_close(thumbs, pairs[pairs[:, 0] != pairs[:, 1]], flipped))
    return np.unique(np.sort(np.concatenate(found), 1), axis=0)


def _close(thumbs: np.ndarray, pairs: np.ndarray, flipped: bool) -> np.ndarray:
    """The pairs that are alike in colour and in detail."""
    one, other = (thumbs[pairs[:, side]].transpose(0, 3, 1, 2).astype(np.float32) for side in (0, 1))
    if flipped:
        one = one[..., ::-1]
    colour = (_centred(one) * _centred(other)).sum(1)
    return pairs[(colour >= COLOUR) & (score(detail(one), detail(other)) >= DETAIL)]


def _centred(images: np.ndarray) -> np.ndarray:
    """Float32 (n, values): each image's values minus their mean, scaled to length 1."""
    values = images.reshape(len(images), int(np.prod(images.shape[1:])))
    values = values - values.mean(1, keepdims=True)
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-6)


def groups_of(pairs: np.ndarray, images: int) -> np.ndarray:
    """For each image the first image of its group, int64 (images,): its own number if ``pairs`` does not name it."""
    first = np.arange(images)

    def root(image: int) -> int:
        while first[image] != image:
            image = first[image]
        return image

    for one, other in pairs.tolist():
        low, high = sorted((root(one), root(other)))
        first[high] = low
    return np.array([root(image) for image in range(images)], np.int64)


def within(pairs: np.ndarray, labels: Sequence[int] | np.ndarray) -> np.ndarray:
    """The pairs whose two images have the same label."""
    of = np.asarray(labels)
    return pairs[of[pairs[:, 0]] == of[pairs[:, 1]]]
