"""Keyed randomness: numbers, seeds and permutations that are pure functions of integers.

There is no state, so the same key gives the same draws after a restart, on any machine, in any order.
"""

import numpy as np

_MASK = 2**64 - 1


def hashes(values: np.ndarray, *key: int) -> np.ndarray:
    """A uniform uint64 for every integer in ``values``, by ``key`` (splitmix64; Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        z = values.astype(np.uint64) + np.uint64(seed(*key))
        z ^= z >> np.uint64(30)
        z *= np.uint64(0xBF58476D1CE4E5B9)
        z ^= z >> np.uint64(27)
        z *= np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
        return z


def seed(*key: int) -> int:
    """A uint64 from a tuple of integers."""
    folded = 0
    for part in key:
        z = (folded ^ (part & _MASK)) + 0x9E3779B97F4A7C15 & _MASK
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB & _MASK
        folded = z ^ (z >> 31)
    return folded


def permutation(count: int, *key: int) -> np.ndarray:
    """The numbers 0 .. count-1 (int64), shuffled by ``key``."""
    return np.argsort(hashes(np.arange(count), *key), kind="stable")
