"""Hints: small objects that describe a run and decide nothing. Progress, seconds, costs, the heartbeat.

They carry no seal. A missing, damaged or unreadable hint counts as absent, and one that cannot be written is skipped:
no hint stops a run.
"""

import contextlib
import json
from collections.abc import Mapping
from typing import Any, TypeGuard

from ray_ns.errors import IntegrityError, ResumableError
from ray_ns.seals import canonical
from ray_ns.store.objects import ObjectStore

LARGE = 1e18


def read(store: ObjectStore, key: str) -> dict[str, Any]:
    """The JSON object at ``key``; empty where there is none, or where it cannot be read."""
    try:
        found = json.loads(store.get(key) or b"{}")
    except (ValueError, RecursionError, IntegrityError, ResumableError):
        return {}
    return found if isinstance(found, dict) else {}


def write(store: ObjectStore, key: str, value: Mapping[str, Any]) -> None:
    """Write ``value`` (JSON values). Nothing happens where the store cannot be written."""
    with contextlib.suppress(ResumableError, IntegrityError):
        store.put(key, canonical(value))


def write_text(store: ObjectStore, key: str, text: bytes) -> None:
    """Write ``text``. Nothing happens where the store cannot be written."""
    with contextlib.suppress(ResumableError, IntegrityError):
        store.put(key, text)


def number(value: Any) -> TypeGuard[float]:
    """Whether ``value`` is a number to calculate with: no bool, no NaN, not huge."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGE


def curve(found: Mapping[str, Any]) -> list[list[float]]:
    """[step, loss, top-1] of every score in a training's progress; empty where it holds anything else."""
    rows = found.get("curve")
    if not isinstance(rows, list):
        return []
    return rows if all(isinstance(row, list) and len(row) == 3 and all(map(number, row)) for row in rows) else []
