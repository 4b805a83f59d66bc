"""Near-duplicates: copies of kept-out images that were re-encoded, resized, mirrored or cropped.

Every image is reduced to 32 x 32 RGB pixels, squeezed to a square. The search has two steps:

1. **Hash.** A 64-bit perceptual hash: the signs of the 64 lowest frequencies of the luminance's cosine transform
   (pHash; Zauner 2010). A mirrored image has the same hash with the odd horizontal frequencies flipped. Each kept-out
   image is hashed in 19 views: whole, and cropped by 5 % and by 10 % at nine places each. Candidates are found through
   four tables of 16 bits each (multi-index hashing; Norouzi et al. 2012): if two hashes differ in at most three bits,
   at least one quarter is equal. The two least certain bits of a quarter are tried both ways, which finds many that
   differ in more. A look-up reads short runs of sorted tables, however many images are kept out.
2. **Score.** Hashes of simple pictures collide. So each candidate is aligned (shifts and scales around the view that
   matched), the low frequencies are removed, since the hash has compared them, and the rest is correlated. The
   correlation is the score, at most 1.

The guard is meant for photographs: different ones score below 0.7, copies above (benchmarks.leaks). Different
digits, glyphs or icons score up to 0.95. So the guard also compares the kept-out images with each other, and sets its
threshold at the score that different images of this kind reach once in a thousand times. For simple pictures it
therefore finds only lightly changed copies (re-encoded, mirrored), not strong crops. A blank image is never a copy.
"""

import itertools
from dataclasses import dataclass, field

import numpy as np

from ray_ns.images.decode import Decode

VERSION = "near-1"
SIDE = 32
thumbnail = Decode(SIDE, 3)

# All chosen on CIFAR-10 with benchmarks.leaks, which names the images that were used for it.
HASH_BITS = 12  # candidates differ in at most so many bits; copies were at most 9 bits from the nearest view
UNCERTAIN = 2  # bits of a quarter that are tried both ways
WORTH_ALIGNING = 0.15  # the least score before the alignment; copies had more
ALIGNED = 2  # candidates per image that are aligned: those with the highest scores so far
COPY_SCORE = 0.7
NOISE = 4.0  # variance, in grey levels, that compression leaves in a flat image
BLUR = 1.5  # standard deviation, in thumbnail pixels, of the Gaussian that removes low frequencies

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_BITS, _TABLES = 64, 4
_CHUNK = 1 << 20  # elements (look-ups, pairs) held in memory at once


@dataclass(frozen=True)
class Copies:
    """Images found to be copies: their rows among those asked about, the rows of the kept-out images, the scores."""

    rows: np.ndarray
    of: np.ndarray
    scores: np.ndarray


def _cosines() -> np.ndarray:
    """The matrix of the cosine transform, float32 (SIDE, SIDE)."""
    k, x = np.mgrid[:SIDE, :SIDE]
    return np.cos(np.pi * (2 * x + 1) * k / (2 * SIDE)).astype(np.float32)


def _sampled(begin: float, end: float) -> np.ndarray:
    """The matrix, float32 (SIDE, SIDE), that stretches ``begin``..``end`` (of 0..1) over a whole side, bilinear."""
    at = ((begin + (np.arange(SIDE) + 0.5) / SIDE * (end - begin)) * SIDE - 0.5).clip(0, SIDE - 1)
    low = np.floor(at).astype(int)
    matrix = np.zeros((SIDE, SIDE), np.float32)
    matrix[np.arange(SIDE), low] += 1 - (at - low)
    matrix[np.arange(SIDE), np.minimum(low + 1, SIDE - 1)] += at - low
    return matrix


def _blurring() -> np.ndarray:
    """The matrix, float32 (SIDE, SIDE), that keeps the low frequencies along a side; borders are repeated."""
    reach = int(4 * BLUR)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / BLUR) ** 2)
    matrix = np.zeros((SIDE, SIDE), np.float32)
    for offset, weight in zip(range(-reach, reach + 1), weights / weights.sum(), strict=True):
        matrix[np.arange(SIDE), (np.arange(SIDE) + offset).clip(0, SIDE - 1)] += weight
    return matrix


def _box(size: float, y: float, x: float) -> tuple[np.ndarray, np.ndarray]:
    """Row and column matrices of a crop of ``size`` (share of the side) whose centre is at ``y``, ``x`` (of 0..1)."""
    return _sampled(y - size / 2, y + size / 2), _sampled(x - size / 2, x + size / 2)


_THIRDS = (0.0, 0.5, 1.0)
_CROPS = [(1.0, 0.5, 0.5)] + [
    (size, size / 2 + (1 - size) * down, size / 2 + (1 - size) * right)
    for size in (0.95, 0.9)
    for down in _THIRDS
    for right in _THIRDS
]
_STEPS = (0.0, -0.02, 0.02)
_VIEWS = [_box(*crop) for crop in _CROPS]
_ALIGNMENTS = [
    tuple(
        np.stack(matrices)
        for matrices in zip(
            *(
                _box(min(size + 1.25 * wider, 1.0), y + down, x + right)
                for wider, down, right in itertools.product(_STEPS, _STEPS, _STEPS)
            ),
            strict=True,
        )
    )
    for size, y, x in _CROPS
]
_FREQUENCIES = np.array(sorted((u + v, u, v) for u in range(SIDE) for v in range(SIDE))[1 : _BITS + 1])
_U, _V = _FREQUENCIES[:, 1], _FREQUENCIES[:, 2]
_LOW = _cosines()[: _FREQUENCIES.max() + 1]
_BLUR = _blurring()


def _packed(bits: np.ndarray) -> np.ndarray:
    """Booleans (n, 64) as uint64 (n,)."""
    return np.ascontiguousarray(np.packbits(bits, axis=1)).view(np.uint64)[:, 0]


_MIRROR = _packed((_V % 2 == 1)[None])[0]
_BIT = _packed(np.eye(_BITS, dtype=bool)[: _BITS // _TABLES]).view(np.uint16)[::_TABLES]


def _spectrum(thumbs: np.ndarray, view: int) -> np.ndarray:
    """The lowest frequencies, float32 (n, 64), of the luminance of ``thumbs`` seen through one of the 19 views."""
    rows, columns = _VIEWS[view]
    return ((_LOW @ rows) @ (thumbs @ LUMA) @ (_LOW @ columns).T)[:, _U, _V]


def hashes(thumbs: np.ndarray, view: int = 0) -> np.ndarray:
    """Perceptual hashes, uint64 (n,), of ``thumbs``, uint8 (n, 32, 32, 3), seen through one of the 19 views."""
    return _packed(_spectrum(thumbs, view) > 0)


def _tries(spectrum: np.ndarray) -> np.ndarray:
    """Bits to flip in each quarter before it is looked up: uint16 (n, tables, tries); the first flips none."""
    weakest = np.abs(spectrum).reshape(-1, _TABLES, _BITS // _TABLES).argsort(2)[:, :, :UNCERTAIN]
    chosen = np.array(list(itertools.product((0, 1), repeat=UNCERTAIN)), np.uint16)
    return _BIT[weakest] @ chosen.T


def detail(pixels: np.ndarray) -> np.ndarray:
    """``pixels``, float32 (n, 3, 32, 32), without their low frequencies."""
    return pixels - _BLUR @ pixels @ _BLUR.T


def score(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Correlation of two stacks of details over their last three axes, float32; about 0 for compression noise."""
    axes = (-3, -2, -1)
    power = ((one**2).mean(axes) + NOISE) * ((other**2).mean(axes) + NOISE)
    return (one * other).mean(axes) / np.sqrt(power)


@dataclass
class Guard:
    """Finds copies of ``thumbs``, the kept-out images: uint8 (n, 32, 32, 3). ``score``: the least score of a copy."""

    thumbs: np.ndarray
    score: float = field(init=False)

    def __post_init__(self) -> None:
        self._hashes = np.stack([hashes(self.thumbs, view) for view in range(len(_VIEWS))], 1).reshape(-1)
        quarters = self._hashes.view(np.uint16).reshape(-1, _TABLES)
        self._order = [np.argsort(quarters[:, table], kind="stable").astype(np.uint32) for table in range(_TABLES)]
        self._sorted = [quarters[order, table] for table, order in enumerate(self._order)]
        self.score = self._threshold()

    def copies(self, thumbs: np.ndarray) -> Copies:
        """Which of ``thumbs``, uint8 (n, 32, 32, 3), are copies, each with the kept-out image that it is most like."""
        found = self._most_alike(thumbs, None)
        return Copies(*(column[found.scores >= self.score] for column in (found.rows, found.of, found.scores)))

    def _threshold(self) -> float:
        """The threshold: a score that images which are no copies reach once in a thousand times.

        Estimated from how alike the kept-out images are to each other. They may contain real copies, so the tail is
        not read off: it is extrapolated from the median and the upper decile, as a normal distribution after Fisher's
        transformation.
        """
        if len(self.thumbs) < 2:
            return COPY_SCORE
        best = np.zeros(len(self.thumbs))
        for begin in range(0, len(self.thumbs), 256):
            found = self._most_alike(self.thumbs[begin : begin + 256], begin)
            best[begin + found.rows] = found.scores
        middle, upper = np.arctanh(np.quantile(best, (0.5, 0.9)).clip(0, 0.999))
        # The normal distribution exceeds 1.28 standard deviations in one of 10 cases, 3.09 in one of 1,000.
        return float(max(COPY_SCORE, np.tanh(middle + (upper - middle) * 3.09 / 1.28)))

    def _most_alike(self, thumbs: np.ndarray, own: int | None) -> Copies:
        """The best candidate for each of ``thumbs`` that has any; ``own``: the row here of the first."""
        rows, of, views, mirrored = self._candidates(thumbs)
        if own is not None:
            others = rows + own != of
            rows, of, views, mirrored = rows[others], of[others], views[others], mirrored[others]
        details = detail(thumbs.transpose(0, 3, 1, 2).astype(np.float32))
        scores = np.empty(len(rows), np.float32)
        for view in np.unique(views):
            scores[views == view] = self._compare(
                details, *(it[views == view] for it in (rows, of, mirrored)), *(it[None] for it in _VIEWS[view])
            )
        order = np.lexsort((-scores, rows))
        rank = np.arange(len(rows)) - np.searchsorted(rows[order], rows[order])
        chosen = order[(rank < ALIGNED) & (scores[order] >= WORTH_ALIGNING)]
        for view in np.unique(views[chosen]):
            at = chosen[views[chosen] == view]
            scores[at] = self._compare(details, rows[at], of[at], mirrored[at], *_ALIGNMENTS[view])
        order = np.lexsort((of, -scores, rows))
        first = order[np.unique(rows[order], return_index=True)[1]]
        return Copies(rows[first], of[first], scores[first])

    def _candidates(self, thumbs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Pairs with similar hashes: row in ``thumbs``, kept-out image, its nearest view, whether mirrored."""
        spectrum = _spectrum(thumbs, 0)
        straight = _packed(spectrum > 0)
        asked = np.concatenate([straight, straight ^ _MIRROR])
        tries = np.tile(_tries(spectrum), (2, 1, 1))
        keys = asked.view(np.uint16).reshape(-1, _TABLES)[:, :, None] ^ tries
        hits = [np.empty((3, 0), np.int64)]
        for table in range(_TABLES):
            wanted = keys[:, table].reshape(-1)
            begin = np.searchsorted(self._sorted[table], wanted, "left")
            count = np.searchsorted(self._sorted[table], wanted, "right") - begin
            cuts = np.flatnonzero(np.diff(np.cumsum(count) // _CHUNK, prepend=0)).tolist()
            for low, high in itertools.pairwise(sorted({0, *cuts, len(wanted)})):
                many = count[low:high]
                within = np.arange(many.sum()) - np.repeat(np.cumsum(many) - many, many)
                entry = self._order[table][np.repeat(begin[low:high], many) + within].astype(np.int64)
                row = np.repeat(np.arange(low, high) // keys.shape[2], many)
                distance = np.bitwise_count(self._hashes[entry] ^ asked[row])
                near = distance <= HASH_BITS
                hits.append(np.stack([row[near], entry[near], distance[near].astype(np.int64)]))
        row, entry, distance = np.concatenate(hits, 1)
        image, view = np.divmod(entry, len(_VIEWS))
        thumb, mirrored = row % len(thumbs), row >= len(thumbs)
        order = np.lexsort((view, mirrored, distance, image, thumb))
        pairs = thumb[order] * len(self.thumbs) + image[order]
        nearest = order[np.unique(pairs, return_index=True)[1]]
        return thumb[nearest], image[nearest], view[nearest], mirrored[nearest]

    def _compare(
        self,
        details: np.ndarray,
        rows: np.ndarray,
        of: np.ndarray,
        mirrored: np.ndarray,
        down: np.ndarray,
        right: np.ndarray,
    ) -> np.ndarray:
        """The best score, float32 (pairs,), over alignments: matrices (alignments, 32, 32) of rows and of columns."""
        best = np.empty(len(rows), np.float32)
        step = max(_CHUNK // (len(down) * 3 * SIDE**2), 1)
        for begin in range(0, len(rows), step):
            part = slice(begin, begin + step)
            seen = details[rows[part]]
            seen = np.where(mirrored[part, None, None, None], seen[..., ::-1], seen)
            kept = self.thumbs[of[part]].transpose(0, 3, 1, 2).astype(np.float32)[:, None]
            turned = down[:, None] @ kept @ right[:, None].transpose(0, 1, 3, 2)
            best[part] = score(seen[:, None], detail(turned)).max(1)
        return best
