"""Checkpoints of one training: tensors as safetensors, a sealed JSON pointer written last.

``<prefix>/checkpoints/<step>-<sha16>.safetensors`` then ``<prefix>/checkpoints/<step>.json``. A checkpoint exists when
its pointer does; the newest whose tensors match their hash is the one that is used.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ray_ns.errors import IntegrityError
from ray_ns.store.commit import StoredObject
from ray_ns.store.manifest import seal, sha256, unseal
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
    """Write ``checkpoint``, then remove all but the newest ``keep``."""
    from safetensors.torch import save as to_bytes

    data = to_bytes(dict(checkpoint.tensors))
    key = f"{prefix}/checkpoints/{checkpoint.step:09d}-{sha256(data)[:16]}.safetensors"
    store.put(key, data)
    stored = {"key": key, "sha256": sha256(data), "size": len(data)}
    pointer = {"step": checkpoint.step, "tensors": stored, "facts": dict(checkpoint.facts)}
    store.put(_pointer(prefix, checkpoint.step), seal(pointer))
    _prune(store, prefix, keep)


def clear(store: ObjectStore, prefix: str) -> None:
    """Remove all checkpoints of a training that has published its network."""
    _prune(store, prefix, 0)


def latest(store: ObjectStore, prefix: str, warn: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint that verifies, or None. ``warn`` is told of each newer one that does not."""
    from safetensors.torch import load as from_bytes

    for key in _pointers(store, prefix):
        data = store.get(key)
        if data is None:
            continue
        try:
            pointer = unseal(data, key)
            tensors = StoredObject(**pointer["tensors"]).read(store)
        except IntegrityError as error:
            warn(f"{key} is not used, the checkpoint before it is: {error}")
            continue
        return Checkpoint(pointer["step"], from_bytes(tensors), pointer["facts"])
    return None


def _pointer(prefix: str, step: int) -> str:
    return f"{prefix}/checkpoints/{step:09d}.json"


def _pointers(store: ObjectStore, prefix: str) -> list[str]:
    """Keys of the pointers, the newest first."""
    return sorted((key for key in store.list(f"{prefix}/checkpoints/") if key.endswith(".json")), reverse=True)


def _prune(store: ObjectStore, prefix: str, keep: int) -> None:
    kept = {key.removesuffix(".json") for key in _pointers(store, prefix)[:keep]}
    for key in store.list(f"{prefix}/checkpoints/"):
        step = key.rsplit("/", 1)[0] + "/" + key.rsplit("/", 1)[1][:9]
        if step not in kept:
            store.delete(key)
