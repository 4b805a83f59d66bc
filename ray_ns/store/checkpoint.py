"""Checkpoints of one training: tensors as safetensors, a sealed JSON pointer written last.

``<prefix>/checkpoints/<step>-<sha16>.safetensors`` then ``<prefix>/checkpoints/<step>.json``. A checkpoint exists when
its pointer does; the newest whose tensors match their hash is the one that is used.
"""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ray_ns.errors import IntegrityError
from ray_ns.seals import seal, sha256, unseal
from ray_ns.store.commit import StoredObject
from ray_ns.store.objects import ObjectStore

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Checkpoint:
    """A training's state after ``step`` optimiser steps: named tensors on the CPU, and facts (JSON values)."""

    step: int
    tensors: "Mapping[str, torch.Tensor]"
    facts: Mapping[str, Any]


def save(store: ObjectStore, prefix: str, checkpoint: Checkpoint, keep: int = 2) -> None:
    """Write ``checkpoint``, then remove those before the newest ``keep`` up to its step.

    A newer one is left alone: it is damaged, or an attempt that was given up has written it, and it counts for nothing.
    """
    from safetensors.torch import save as to_bytes

    data = to_bytes(dict(checkpoint.tensors))
    key = f"{prefix}/checkpoints/{checkpoint.step:09d}-{sha256(data)[:16]}.safetensors"
    store.put(key, data)
    stored = {"key": key, "sha256": sha256(data), "size": len(data)}
    pointer = {"step": checkpoint.step, "tensors": stored, "facts": dict(checkpoint.facts)}
    store.put(_pointer(prefix, checkpoint.step), seal(pointer))
    own = _pointer(prefix, checkpoint.step)
    oldest = min([key for key in _pointers(store, prefix) if key <= own][:keep], default=own).removesuffix(".json")
    for key in store.list(f"{prefix}/checkpoints/"):
        if key < oldest:
            store.delete(key)


class Writer:
    """Saves the checkpoints of one training in a thread, one at a time, so that the steps go on meanwhile.

    ``fence`` is called before each; ``waited``: seconds for which its caller stood still. What goes wrong in the thread
    is raised by the next call of any method.
    """

    def __init__(self, store: ObjectStore, prefix: str, fence: Callable[[], None], keep: int) -> None:
        self._store, self._prefix, self._fence, self._keep = store, prefix, fence, keep
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._under_way: Future[None] | None = None
        self.waited = 0.0

    def save(self, take: Callable[[], Checkpoint]) -> None:
        """Save what ``take`` returns now; nobody may change those tensors afterwards."""
        self.wait()
        began = time.monotonic()
        self._under_way = self._thread.submit(self._save, take())
        self.waited += time.monotonic() - began

    def check(self) -> None:
        """Raise what went wrong in a write that has ended."""
        if self._under_way is not None and self._under_way.done():
            self.wait()

    def wait(self) -> None:
        """Return when nothing is under way."""
        ended, self._under_way = self._under_way, None
        if ended is not None:
            began = time.monotonic()
            ended.result()
            self.waited += time.monotonic() - began

    def _save(self, checkpoint: Checkpoint) -> None:
        self._fence()
        save(self._store, self._prefix, checkpoint, self._keep)


def clear(store: ObjectStore, prefix: str) -> None:
    """Remove all checkpoints of a training that has published its network."""
    for key in store.list(f"{prefix}/checkpoints/"):
        store.delete(key)


def latest(store: ObjectStore, prefix: str, warn: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint that verifies, or None. ``warn`` is told of each newer one that does not."""
    refused: list[tuple[str, IntegrityError]] = []
    found = None
    for key in _pointers(store, prefix):
        try:
            found = _read(store, key)
        except IntegrityError as error:
            refused.append((key, error))
        if found is not None:
            break
    instead = f"{_pointer(prefix, found.step)} is" if found else "no other is left, the training begins anew"
    for key, reason in refused:
        warn(f"{key} is not used, {instead}: {reason}")
    return found


def at(store: ObjectStore, prefix: str, step: int) -> Checkpoint:
    """The checkpoint of ``step``. ``IntegrityError`` where it does not verify, or is gone."""
    key = _pointer(prefix, step)
    found = _read(store, key)
    if found is None:
        raise IntegrityError(
            f"{key} in {store.url} is gone since the first worker read it; run the same command again."
        )
    return found


def _read(store: ObjectStore, key: str) -> Checkpoint | None:
    from safetensors.torch import load as from_bytes

    data = store.get(key)
    if data is None:
        return None
    pointer = unseal(data, key)
    return Checkpoint(pointer["step"], from_bytes(StoredObject(**pointer["tensors"]).read(store)), pointer["facts"])


def _pointer(prefix: str, step: int) -> str:
    return f"{prefix}/checkpoints/{step:09d}.json"


def _pointers(store: ObjectStore, prefix: str) -> list[str]:
    """Keys of the pointers, the newest first."""
    return sorted((key for key in store.list(f"{prefix}/checkpoints/") if key.endswith(".json")), reverse=True)
