"""Read an evenly spread sample of the pool before a run, so that a pool of unreadable images is refused at once."""

import math
import time
from collections import Counter

import numpy as np

from ray_ns.corpora.unreadable import in_words, refuse_above
from ray_ns.engine.resources import local_cpus
from ray_ns.engine.run import Run
from ray_ns.errors import InputError
from ray_ns.images import leak_guard
from ray_ns.images.decode import Reason
from ray_ns.images.isolate import SafeDecode

IMAGES, SHARDS, SECONDS = 500, 25, 20.0
SURE = 1e-3  # the chance that a pool within the limit is refused


def check_pool(run: Run) -> None:
    """Raise ``InputError`` where the sample shows that more of the pool is unreadable than ``data.max_quarantined``.

    A pool of at most ``IMAGES`` images in ``SHARDS`` shards is read whole.
    """
    pool, allowed = run.corpora["pool"], run.config.data.max_quarantined
    decode = SafeDecode(leak_guard.thumbnail, run.config.label.image_seconds, local_cpus(run.config))
    chosen = np.unique(np.linspace(0, len(pool.shards) - 1, SHARDS).round().astype(int)).tolist()
    each = -(-IMAGES // len(chosen))
    bad: dict[str, str] = {}
    seen, whole, began = 0, len(chosen) == len(pool.shards), time.monotonic()
    for shard in (pool.shards[at] for at in chosen):
        reader = pool.open(shard)
        left, first = each, 0
        for group, rows in enumerate(reader.group_rows):
            take = min(rows, left)
            whole &= take == rows
            if take and time.monotonic() - began < SECONDS:
                images = reader.images(group, np.arange(take)).to_pylist()
                for row, outcome in enumerate(decode(f"sample {pool.root} {shard.path} {shard.stamp} {group}", images)):
                    if isinstance(outcome, Reason):
                        bad[reader.where(first + row)] = str(outcome)
                seen += take
                left -= take
            else:
                whole &= not rows
            first += rows
    reasons = Counter(bad.values())
    if whole:
        refuse_above(allowed, seen, reasons, "data.pool", "data.max_quarantined", bad)
    elif seen and _chance(len(bad), seen, allowed) < SURE:
        raise InputError(
            f"data.pool: {len(bad)} of {seen} sampled images cannot be read ({in_words(reasons, bad)}), so surely "
            f"more than data.max_quarantined = {allowed:g} of all. Mend the images, or raise it."
        )


def _chance(bad: int, seen: int, share: float) -> float:
    """The chance that of ``seen`` images at least ``bad`` are bad, where that ``share`` of all is (binomial)."""
    return 1 - sum(math.comb(seen, it) * share**it * (1 - share) ** (seen - it) for it in range(bad))
