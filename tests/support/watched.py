"""A store that notes what is asked of it, and dies at any point of it."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from support.dying import Killed

from ray_ns.store.objects import Aged, LocalStore


class WatchedStore:
    """A local store that notes each operation, and dies before the one numbered ``die_at`` (from 0)."""

    def __init__(self, root: Path, die_at: int | None = None) -> None:
        self.inner = LocalStore(root)
        self.url = self.inner.url
        self.die_at = die_at
        self.operations: list[tuple[str, str]] = []

    def _step(self, name: str, key: str) -> None:
        if len(self.operations) == self.die_at:
            raise Killed
        self.operations.append((name, key))

    def writes(self) -> list[str]:
        return [key for name, key in self.operations if name in {"put", "put_if_absent", "delete"}]

    def get(self, key: str) -> bytes | None:
        self._step("get", key)
        return self.inner.get(key)

    def open(self, key: str) -> BinaryIO | None:
        self._step("open", key)
        return self.inner.open(key)

    def put(self, key: str, data: bytes) -> None:
        self._step("put", key)
        self.inner.put(key, data)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        self._step("put_if_absent", key)
        return self.inner.put_if_absent(key, data)

    def delete(self, key: str) -> None:
        self._step("delete", key)
        self.inner.delete(key)

    def patient(self, seconds: float) -> "WatchedStore":
        return self

    def sweep(self) -> None:
        self.inner.sweep()

    def list(self, prefix: str) -> Iterator[str]:
        self._step("list", prefix)
        return self.inner.list(prefix)

    def ages(self, prefix: str) -> Iterator[Aged]:
        self._step("ages", prefix)
        return self.inner.ages(prefix)

    def prune(self, folder: str) -> None:
        self._step("prune", folder)
        self.inner.prune(folder)
