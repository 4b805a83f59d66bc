"""Checkpoints of one training: tensors as safetensors, a sealed JSON pointer written last.

``<place>/<step>-<epoch>-<lease>-<sha16>.safetensors`` then ``<place>/<step>-<epoch>-<lease>.json``, where the place is
``<prefix>/checkpoints/<digest of the plan>``. A checkpoint exists when its pointer does. The newest one whose tensors
match their hash is used.

A driver that was suspended between its fence and its write may write after another one has taken over. Epoch and lease
in the names make that harmless: it replaces and removes none of the other's checkpoints. Checkpoints of another plan
lie in another place, so they are never read.
"""

import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ray_ns import measures
from ray_ns.errors import IntegrityError
from ray_ns.seals import seal, sha256, unseal
from ray_ns.store.commit import StoredObject
from ray_ns.store.lease import Holder, fence
from ray_ns.store.objects import ObjectStore

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Checkpoint:
    """A training's state after ``step`` optimiser steps: named tensors on the CPU, and facts (JSON values).

    ``key``: the key of its pointer, if it was read from a store.
    """

    step: int
    tensors: "Mapping[str, torch.Tensor]"
    facts: Mapping[str, Any]
    key: str = ""


_NAME = re.compile(r"(\d{9})-(\d{6,})-([0-9a-f]+)(\.json|-[0-9a-f]{16}\.safetensors)", re.ASCII)


def place(prefix: str, plan: str) -> str:
    """Where the checkpoints of the training at ``prefix`` lie; ``plan``: the digest of its inputs."""
    return f"{prefix}/checkpoints/{plan[:16]}"


def pointer_of(key: str) -> str | None:
    """The key of the pointer that a file of a checkpoint belongs to, perhaps itself; None where it is no such file."""
    folder, _, name = key.rpartition("/")
    found = _NAME.fullmatch(name)
    return f"{folder}/{found[1]}-{found[2]}-{found[3]}.json" if found else None


def save(store: ObjectStore, place: str, holder: Holder, checkpoint: Checkpoint, keep: int = 2) -> None:
    """Write ``checkpoint`` for ``holder``, then remove all but the newest ``keep`` of its own and of earlier drivers.

    Checkpoints of later steps are neither counted nor removed: they are damaged, or an abandoned attempt wrote them.
    """
    from safetensors.torch import save as to_bytes

    data = to_bytes(dict(checkpoint.tensors))
    name = f"{place}/{checkpoint.step:09d}-{holder.epoch:06d}-{holder.lease}"
    key = f"{name}-{sha256(data)[:16]}.safetensors"
    store.put(key, data)
    stored = {"key": key, "sha256": sha256(data), "size": len(data)}
    pointer = {"step": checkpoint.step, "tensors": stored, "facts": dict(checkpoint.facts)}
    store.put(f"{name}.json", seal(pointer))
    older = [it for it in _pointers(store, place) if it.step <= checkpoint.step and not it.is_after(holder)]
    oldest = min((it.step for it in older[:keep]), default=checkpoint.step)
    for it in _files(store, place):
        if it.step < oldest and not it.is_after(holder):
            store.delete(it.key)


class Writer:
    """Saves the checkpoints of one training in a thread, one at a time, so that the steps go on meanwhile.

    ``waited``: for how many seconds the caller was blocked. An error in the thread is raised by the next call of any
    method.
    """

    def __init__(self, store: ObjectStore, place: str, holder: Holder, keep: int) -> None:
        self._store, self._place, self._holder, self._keep = store, place, holder, keep
        self._fence = fence(store, holder)
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._under_way: Future[None] | None = None
        self.waited = 0.0

    def save(self, take: Callable[[], Checkpoint]) -> None:
        """Call ``take`` now and save what it returns. Its tensors must not change afterwards."""
        self.wait()
        began = time.monotonic()
        self._under_way = self._thread.submit(self._save, take())
        self._waited_since(began)

    def check(self) -> None:
        """Raise the error of the last write, if it has ended with one."""
        if self._under_way is not None and self._under_way.done():
            self.wait()

    def wait(self) -> None:
        """Wait until no write is under way."""
        ended, self._under_way = self._under_way, None
        if ended is not None:
            began = time.monotonic()
            ended.result()
            self._waited_since(began)

    def _waited_since(self, began: float) -> None:
        seconds = time.monotonic() - began
        self.waited += seconds
        measures.count("ns_checkpoint_stall_seconds", seconds)

    def _save(self, checkpoint: Checkpoint) -> None:
        self._fence()
        save(self._store, self._place, self._holder, checkpoint, self._keep)
        measures.count("ns_checkpoints")


def clear(store: ObjectStore, prefix: str) -> None:
    """Remove all checkpoints of a training that has published its network."""
    for key in store.list(f"{prefix}/checkpoints/"):
        if _NAME.fullmatch(key.rpartition("/")[2]):
            store.delete(key)


def latest(store: ObjectStore, place: str, warn: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint that verifies, or None. ``warn`` is called for each newer one that does not."""
    refused: list[tuple[str, IntegrityError]] = []
    found = None
    for it in _pointers(store, place):
        try:
            found = _read(store, it.key)
        except IntegrityError as error:
            refused.append((it.key, error))
        if found is not None:
            break
    instead = f"{found.key} is" if found else "no other is left, the training begins anew"
    for key, reason in refused:
        warn(f"{key} is not used, {instead}: {reason}")
    return found


def at(store: ObjectStore, key: str) -> Checkpoint:
    """The checkpoint whose pointer is ``key``. ``IntegrityError`` where it does not verify, or is gone."""
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
    tensors = from_bytes(StoredObject(**pointer["tensors"]).read(store))
    return Checkpoint(pointer["step"], tensors, pointer["facts"], key)


@dataclass(frozen=True, order=True)
class _File:
    """What a file's name says of it."""

    step: int
    epoch: int
    lease: str
    key: str

    def is_after(self, holder: Holder) -> bool:
        """Whether a driver other than ``holder`` wrote it, and not an earlier one."""
        return self.epoch >= holder.epoch and self.lease != holder.lease


def _files(store: ObjectStore, place: str) -> list[_File]:
    named = ((key, _NAME.fullmatch(key.removeprefix(f"{place}/"))) for key in store.list(f"{place}/"))
    return [_File(int(it[1]), int(it[2]), it[3], key) for key, it in named if it]


def _pointers(store: ObjectStore, place: str) -> list[_File]:
    """The pointers, the newest first."""
    return sorted((it for it in _files(store, place) if it.key.endswith(".json")), reverse=True)
