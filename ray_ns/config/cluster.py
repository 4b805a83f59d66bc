"""Settings ``cluster``: what the work runs on."""

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from ray_ns.config.schema import Positive, Section, how

MOST_LOADERS = 16  # by auto: each takes some 300 MB, and 16 decode 5,000 to 10,000 images a second
# As Kubernetes and Ray have them: a label's key with or without a prefix, and what a selector may ask of its value.
_NAME = "[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_KEY = re.compile(rf"([a-z0-9]([a-z0-9.-]{{0,251}}[a-z0-9])?/)?{_NAME}")
_ASKED = re.compile(rf"!?{_NAME}|!?in\({_NAME}(, ?{_NAME})*\)")


def _selector(value: Any) -> Any:
    """A label selector, as Ray takes it: what its labels must be."""
    if not isinstance(value, dict):
        return value
    for key, asked in value.items():
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            raise ValueError(f"found the label {key!r}; expected a name such as ray-ns/decode")
        if not isinstance(asked, str):
            raise ValueError(f'found {key}: {asked!r}; a label is text, so write it in quotes, such as {key}: "true"')
        if not _ASKED.fullmatch(asked):
            raise ValueError(f"found {key}: {asked!r}; expected a value such as true, !true, in(a, b) or !in(a, b)")
    if not value:
        raise ValueError("found no label; null takes any node")
    return value


Selector = Annotated[dict[str, str], BeforeValidator(_selector)]


class Cluster(Section):
    """What the work runs on."""

    address: str | None = how(
        None, "Ray cluster to join; null: the one in RAY_ADDRESS (ray job submit), else a local one for this run"
    )
    cpus: Positive | None = how(None, "local: logical CPUs Ray may use; null: all, at least 2")
    gpus: Annotated[int, Field(ge=0)] | None = how(None, "local: logical GPUs Ray may use; null: all there are")
    object_store_mb: Annotated[int, Field(ge=80)] | None = how(
        None, "local: size of Ray's object store, MB; null: 256, and room for the pixels that cross it"
    )
    train_workers: Positive | Annotated[list[Positive], Field(min_length=2, max_length=2)] = Field(
        1,
        description="training workers (changes the order of sums, not of images); [least, most]: as many as the "
        "cluster can hold, more or fewer as it grows and shrinks",
    )
    bn_group: Positive = Field(
        1,
        description="training workers whose batch norms take their statistics together, over the images of all of them "
        "at once; divides train_workers; 1: each alone (the released code: 1 up to 8 shards, else max(8, shards / 8))",
    )
    train_threads: Positive = Field(1, description="CPU threads of one training worker (changes the last bits)")
    train_gpus: Annotated[int, Field(ge=0, le=1)] = how(0, "GPUs of one training worker")
    train_loaders: Annotated[int, Field(ge=0)] | Literal["auto"] = how(
        "auto",
        "processes that read and decode images ahead of each training worker; 0: the worker does it itself; auto: for "
        "a GPU worker its share of the machine's CPUs (of cluster.cpus), 16 at most; for a CPU worker none",
    )
    train_microbatch: Positive | None = how(
        None,
        "most images that go through a worker's network at once: the gradients of its share of the batch are summed "
        "over them, so that it fits a small memory (batch norm sees so many at a time); null: its whole share",
    )
    decode_on: Selector | None = how(
        None,
        "on a cluster: labels of the nodes that list, read and decode images, ingest and select, such as "
        '{"ray-ns/decode": "true"} (Ray\'s label selectors: also !true, in(a, b), !in(a, b)); null: any node',
    )
    teachers_on: Selector | None = how(None, "on a cluster: labels of the nodes of teacher actors; null: any node")
    train_on: Selector | None = how(None, "on a cluster: labels of the nodes of training workers; null: any node")
    max_failures: Annotated[int, Field(ge=0)] = how(
        3,
        "worker losses a training survives before it gives up; not counted: machines taken away with notice (spot)",
    )
    checkpoint_steps: Positive = how(100, "optimiser steps between two checkpoints of a training")
    checkpoints_kept: Annotated[int, Field(ge=2)] = how(
        2, "newest checkpoints of a training that are kept: where one is damaged, the one before it is used"
    )
    timeout_seconds: Annotated[float, Field(gt=0)] = how(1800.0, "a stage without progress for so long has failed")
    store_seconds: Annotated[float, Field(gt=0)] = how(
        300.0, "how long a request to a run in S3 is tried before the run stops, to be gone on with later"
    )

    def loaders(self, cpus: int) -> int:
        """``train_loaders`` with ``auto`` decided. ``cpus``: those of the machine per training worker.

        A GPU waits for images unless several processes decode them; a CPU worker's own processor is the bottleneck.
        """
        if self.train_loaders != "auto":
            return self.train_loaders
        return min(MOST_LOADERS, max(1, cpus - self.train_threads)) if self.train_gpus else 0

    @property
    def worker_counts(self) -> range:
        """Every number of training workers that there may be."""
        least, most = (
            (self.train_workers, self.train_workers) if isinstance(self.train_workers, int) else self.train_workers
        )
        return range(least, most + 1)

    @model_validator(mode="after")
    def _least_first(self) -> "Cluster":
        if not self.worker_counts:
            raise ValueError(f"train_workers = {self.train_workers}; expected [least, most]")
        if len(self.worker_counts) > 1 and self.train_on and not self.train_gpus:
            raise ValueError(
                f"train_on = {self.train_on} and train_workers = {self.train_workers}: Ray counts how many workers the "
                f"cluster holds by CPUs and GPUs, not by labels. Give one number of workers, train_gpus: 1, or "
                f"train_on: null"
            )
        return self
