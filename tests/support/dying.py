"""A process that dies at a write to its run, wherever in the program that is."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ray_ns.store.objects import LocalStore

Die = Callable[[int | None], list[str]]


class Killed(BaseException):
    """The process is gone: nothing may catch it."""


class FaultyStore(LocalStore):
    """A local store that dies before the operation numbered ``die_at`` (from 0)."""

    def __init__(self, root: Path, die_at: int | None = None) -> None:
        super().__init__(root)
        self.die_at = die_at
        self.operations = 0

    def _step(self) -> None:
        if self.operations == self.die_at:
            raise Killed
        self.operations += 1

    def put(self, key: str, data: bytes) -> None:
        self._step()
        super().put(key, data)

    def delete(self, key: str) -> None:
        self._step()
        super().delete(key)

    def list(self, prefix: str) -> Iterator[str]:
        self._step()
        return super().list(prefix)


def records(place: Path) -> dict[str, bytes]:
    """Everything but who drove, what was told, how long it took, and where the images lay."""
    found = {path.relative_to(place).as_posix(): path for path in place.rglob("*") if path.is_file()}
    hints = ("driver/", "events", "places.json")
    return {k: v.read_bytes() for k, v in found.items() if not k.startswith(hints) and "timing" not in k}


def dying_writes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Die]:
    """Yields what lets the process die before the n-th write, heartbeats and events apart; it returns the keys."""
    written: list[str] = []
    limit: list[int | None] = [None]
    for name in ("put", "put_if_absent"):
        original = getattr(LocalStore, name)

        def write(self: LocalStore, key: str, data: bytes, original: Callable[..., Any] = original) -> Any:
            if not key.startswith(("driver/", "events")):
                if len(written) == limit[0]:
                    raise Killed
                written.append(key)
            return original(self, key, data)

        monkeypatch.setattr(LocalStore, name, write)

    def die(at: int | None) -> list[str]:
        written.clear()
        limit[0] = at
        return written

    yield die
    limit[0] = None
