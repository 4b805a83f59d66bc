"""Read an evenly spread sample of the pool before a run, so that a pool of unreadable images is refused at once."""

import math
import time
from collections import Counter
from collections.abc import Sequence

import numpy as np

from ray_ns.corpora.unreadable import in_words, refuse_above
from ray_ns.engine.resources import local_cpus
from ray_ns.engine.run import Run
from ray_ns.errors import InputError
from ray_ns.images import leak_guard
from ray_ns.images.decode import Reason
from ray_ns.images.isolate import SafeDecode

IMAGES, GROUPS, SECONDS = 500, 25, 20.0  # groups: of rows; a file may have to be read by whole ones
SURE = 1e-3  # the chance that a pool within the limit is refused


def check_pool(run: Run) -> None:
    """Raise ``InputError`` where the sample shows that more of the pool is unreadable than ``data.max_quarantined``.

    A pool of at most ``IMAGES`` images in ``GROUPS`` shards is read whole. Of others the rows are spread evenly, and
    the group with most unreadable ones does not count: what failed together, such as one download, lies together.
    """
    pool, allowed = run.corpora["pool"], run.config.data.max_quarantined
    decode = SafeDecode(leak_guard.thumbnail, run.config.label.image_seconds, local_cpus(run.config))
    chosen = np.unique(np.linspace(0, len(pool.shards) - 1, GROUPS).round().astype(int)).tolist()
    each = -(-IMAGES // len(chosen))
    bad: dict[str, str] = {}
    found: list[tuple[int, int]] = []  # of each group: unreadable images, and all that were read
    whole, began = len(chosen) == len(pool.shards), time.monotonic()
    for number, shard in enumerate(pool.shards[at] for at in chosen):
        reader = pool.open(shard)
        rows_of = spread(reader.group_rows, each, max(1, GROUPS // len(chosen)), (number + 0.5) / len(chosen))
        whole &= sum(map(len, rows_of.values())) == sum(reader.group_rows)
        for group, rows in rows_of.items():
            if time.monotonic() - began > SECONDS:
                whole = False
                break
            images, first, before = reader.images(group, rows).to_pylist(), sum(reader.group_rows[:group]), len(bad)
            named = f"sample {pool.root} {shard.path} {shard.stamp} {group}"
            for row, outcome in zip(rows.tolist(), decode(named, images), strict=True):
                if isinstance(outcome, Reason):
                    bad[reader.where(first + row)] = str(outcome)
            found.append((len(bad) - before, len(rows)))
    reasons, seen = Counter(bad.values()), sum(rows for _, rows in found)
    if whole:
        refuse_above(allowed, seen, reasons, "data.pool", "data.max_quarantined", bad)
        return
    worst = max(found) if len(found) > 1 else (0, 0)
    if seen and _chance(len(bad) - worst[0], seen - worst[1], allowed) < SURE:
        raise InputError(
            f"data.pool: {len(bad)} of {seen} sampled images cannot be read ({in_words(reasons, bad)}), so surely "
            f"more than data.max_quarantined = {allowed:g} of all. Mend the images, or raise it."
        )


def spread(group_rows: Sequence[int], images: int, groups: int, phase: float) -> dict[int, np.ndarray]:
    """Which rows of which groups to read: all of a shard of so few ``images``, else about so many of some ``groups``.

    More groups where they are so small that it takes more. ``phase``, 0..1, moves the choice, so that shards which are
    alike do not give the same places.
    """
    filled = [at for at, rows in enumerate(group_rows) if rows]
    if sum(group_rows) <= images:
        return {at: np.arange(group_rows[at]) for at in filled}
    many = min(max(groups, -(-images * len(filled) // sum(group_rows))), len(filled))
    chosen = [filled[int((it + phase) / many * len(filled))] for it in range(many)]
    each = -(-images // many)
    return {
        at: np.unique(np.linspace(0, group_rows[at] - 1, min(each, group_rows[at])).round().astype(int))
        for at in chosen
    }


def _chance(bad: int, seen: int, share: float) -> float:
    """The chance that of ``seen`` images at least ``bad`` are bad, where that ``share`` of all is (binomial)."""
    return 1 - sum(math.comb(seen, it) * share**it * (1 - share) ** (seen - it) for it in range(bad))
