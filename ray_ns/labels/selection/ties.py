"""Where too many labels have the very same confidence: the one shard in which a class's last image lies.

A teacher that is sure of everything gives millions of labels a confidence of exactly 1. No bin can tell them apart, and
they are too many to settle in one place. Shards hold runs of ids, and ties go by id, so counting them per shard says in
which shard a class ends.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from ray_ns.labels.selection.bins import UNREACHED, floors
from ray_ns.labels.selection.passes import Bounds
from ray_ns.labels.selection.rules import Quotas

EDGE_ROWS = 4_000_000  # so many undecided rows are settled in one place
HIGHEST = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Ties:
    """One shard's lowest and highest image id, and how many labels of each class tie there, int32 (classes,)."""

    first: int
    last: int
    held: np.ndarray


def has_crowded_tie(quota: Quotas) -> np.ndarray:
    """Classes (bool) whose edge bin is one single confidence, where all edge bins hold more than ``EDGE_ROWS``."""
    lowest = floors()
    single = (quota.edge == 0) | (lowest[quota.edge - 1] == np.nextafter(lowest[quota.edge], UNREACHED))
    return single & (quota.edge >= 0) & (quota.held.sum() > EDGE_ROWS)


def in_shard(ids: np.ndarray, labels: np.ndarray, confidence: np.ndarray, quota: Quotas) -> Ties | None:
    """How many of a shard's labelled rows have their class's crowded confidence; None for a shard without rows."""
    if not len(ids):
        return None
    at = np.where(has_crowded_tie(quota), floors()[quota.edge], UNREACHED)
    index = labels.astype(np.int64)
    held = np.bincount(index[confidence == at[index]], minlength=len(at)).astype(np.int32)
    return Ties(int(ids.min()), int(ids.max()), held)


def within_one_shard(quota: Quotas, ends: Bounds, found: Sequence[Ties]) -> tuple[Quotas, Bounds]:
    """Quotas and bounds that leave undecided, of each crowded class, only the shard in which its last image lies.

    Where the shards' ids overlap, both are returned as they are, and all edge rows are settled in one place.
    """
    found = sorted(found, key=lambda it: it.first)
    if any(a.last >= b.first for a, b in pairwise(found)):
        return quota, ends
    here = np.flatnonzero(has_crowded_tie(quota))
    reached = np.cumsum([it.held[here] for it in found], axis=0, dtype=np.int64)
    shard = (reached < quota.taken[here]).sum(0)
    first, last = np.zeros(len(quota.edge), np.int64), np.full(len(quota.edge), HIGHEST)
    first[here] = np.array([it.first for it in found])[shard]
    last[here] = np.array([it.last for it in found])[shard]
    columns = np.arange(len(here))
    taken = quota.taken.copy()
    taken[here] -= np.where(shard > 0, reached[shard - 1, columns], 0)
    return replace(quota, taken=taken), replace(ends, first=first, last=last)
