"""Counting a label table's rows by class and confidence bin."""

import pyarrow as pa

from ray_ns.errors import InputError
from ray_ns.labels.arrow import as_numpy
from ray_ns.labels.selection import passes, terms
from ray_ns.labels.sound import NO_USE


def tally(classes: int) -> passes.Tally:
    """A tally whose counts serve every selection by the rule ``paper``."""
    return passes.Tally(terms.all_labels(classes, 0))


def add(counted: passes.Tally, table: pa.Table, key: str) -> None:
    """Count a label table's labelled rows. ``InputError`` naming ``key`` where a confidence is NaN or outside 0..1."""
    labels, confidence = (as_numpy(table[name].drop_null()) for name in ("label", "confidence"))
    try:
        counted.add(labels, confidence)
    except ValueError as error:
        raise InputError(f"{key}: {error}. The teacher's network {NO_USE}") from error
