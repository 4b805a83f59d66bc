"""What a run counts and times for whoever watches it: one table of all measures. ``use`` says where they go.

Any room calls ``count``, ``timed`` and ``level`` where the truth is. Without a sink a call costs half a microsecond. A
name that is not in the table, or other labels than it has, is a mistake in the program.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "level", "histogram"]


@dataclass(frozen=True)
class Measure:
    """One row of the table. ``labels``: what its values are told apart by, beside the run; ``stage`` is filled in.

    ``buckets``: upper ends, ascending, of a histogram's.
    """

    name: str
    kind: Kind
    description: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


Sink = Callable[[Measure, float, Mapping[str, str]], None]

# Ray adds a histogram's values up as if each lay in the middle of its bucket: at most a quarter wrong with this factor.
SECONDS = tuple(float(f"{0.001 * 1.5**power:.3g}") for power in range(28))
STAGE = ("stage",)
_TABLE = (
    Measure("ns_driver_up", "level", "1 while the driver lives; 0 once it has ended as it should"),
    Measure("ns_stage_done", "level", "What is done of the stage under way, in the stage's unit", STAGE),
    Measure("ns_stage_total", "level", "All of the stage under way, in the stage's unit", STAGE),
    Measure("ns_commits", "counter", "Stages committed", STAGE),
    Measure("ns_retries", "counter", "What failed and is tried again: store, training", ("what", *STAGE)),
    Measure("ns_store_requests", "counter", "Requests to the run directory", ("verb", "outcome", *STAGE)),
    Measure("ns_store_seconds", "histogram", "Seconds of a request to the run directory", ("verb",), SECONDS),
    Measure("ns_kept_images", "level", "Images that the last selection keeps"),
    Measure("ns_top1", "level", "Top-1 (0..1) of the network evaluated last", ("corpus",)),
    Measure("ns_images_labelled", "counter", "Images that a teacher has labelled", STAGE),
    Measure("ns_images_quarantined", "counter", "Images that cannot be read", ("reason", *STAGE)),
    Measure("ns_forward_seconds", "histogram", "Seconds of a network on a slice, its table included", STAGE, SECONDS),
    Measure("ns_slice_wait_seconds", "histogram", "Seconds that it idles before a slice", STAGE, SECONDS),
    Measure("ns_images_decoded", "counter", "Images decoded to be labelled or scored, readable or not", STAGE),
    Measure("ns_decode_seconds", "histogram", "Seconds that the decoding of a slice takes", STAGE, SECONDS),
    Measure("ns_bytes_read", "counter", "Bytes read from the shards of corpora", STAGE),
    Measure("ns_train_steps", "counter", "Optimiser steps, counted by the first worker", STAGE),
    Measure("ns_train_images", "counter", "Images that training workers have learned from", STAGE),
    Measure("ns_step_seconds", "histogram", "Seconds of a worker's optimiser step", STAGE, SECONDS),
    Measure("ns_input_wait_seconds", "counter", "Seconds that workers waited for a batch of images", STAGE),
    Measure("ns_checkpoint_stall_seconds", "counter", "Seconds that steps waited for checkpoints", STAGE),
    Measure("ns_checkpoints", "counter", "Checkpoints written", STAGE),
    Measure("ns_loss", "level", "Loss of the last step", STAGE),
)
MEASURES = {measure.name: measure for measure in _TABLE}
_sink: Sink | None = None
_stage = ""


def use(sink: Sink | None) -> None:
    """Send what this process measures from now on to ``sink``; None: nowhere."""
    global _sink
    _sink = sink


def used() -> bool:
    """Whether there is a sink."""
    return _sink is not None


def works_on(stage: str) -> None:
    """Name the stage that this process works on from now on, without its turn."""
    global _stage
    _stage = stage


@contextmanager
def during(stage: str) -> Iterator[None]:
    """While the block runs, this process works on that stage."""
    before = _stage
    works_on(stage)
    try:
        yield
    finally:
        works_on(before)


def count(name: str, value: float = 1, **labels: str) -> None:
    """Add ``value`` (at least 0) to a counter."""
    measure = _measure(name, "counter", labels)
    assert value >= 0, f"{name}: {value}"
    if value:
        _send(measure, value, labels)


def timed(name: str, seconds: float, **labels: str) -> None:
    """Note how long something took."""
    _send(_measure(name, "histogram", labels), seconds, labels)


def level(name: str, value: float, **labels: str) -> None:
    """Set a level, which stays until it is set anew."""
    _send(_measure(name, "level", labels), value, labels)


def _measure(name: str, kind: Kind, labels: Mapping[str, str]) -> Measure:
    measure = MEASURES.get(name)
    assert measure is not None, f"{name} is not in the table"
    assert measure.kind == kind, f"{name} is a {measure.kind}, no {kind}"
    assert all(label in measure.labels for label in labels), f"{name} has the labels {measure.labels}, not {labels}"
    assert len(labels) == len(measure.labels) - ("stage" in measure.labels and "stage" not in labels), name
    return measure


def _send(measure: Measure, value: float, labels: dict[str, str]) -> None:
    if _sink is None:
        return
    if "stage" in measure.labels:
        labels.setdefault("stage", _stage)
    _sink(measure, value, labels)


# A process that forks, as a training does for its loaders, may hold a lock of the sink's at that moment.
os.register_at_fork(after_in_child=lambda: use(None))
