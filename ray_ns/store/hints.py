"""Small objects that tell of a run and decide nothing: progress, seconds, costs, the heartbeat.

They carry no seal. One that is lost, garbage or cannot be read counts as none, and one that cannot be written is left
out: a hint never costs a run.
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
    """The JSON object at ``key``; empty where there is none that can be read."""
    try:
        found = json.loads(store.get(key) or b"{}")
    except (ValueError, RecursionError, IntegrityError, ResumableError):
        return {}
    return found if isinstance(found, dict) else {}


def write(store: ObjectStore, key: str, value: Mapping[str, Any]) -> None:
    """Put ``value`` (JSON values), or nothing where the store does not take it."""
    with contextlib.suppress(ResumableError, IntegrityError):
        store.put(key, canonical(value))


def number(value: Any) -> TypeGuard[float]:
    """Whether ``value`` is a number that can be reckoned with."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGE


def curve(found: Mapping[str, Any]) -> list[list[float]]:
    """[step, loss, top-1] of every score in a training's progress; empty where that is not what it holds."""
    rows = found.get("curve")
    if not isinstance(rows, list):
        return []
    return rows if all(isinstance(row, list) and len(row) == 3 and all(map(number, row)) for row in rows) else []
