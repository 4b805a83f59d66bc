"""Where a run stands, read from its directory alone."""

import json
import time
from collections.abc import Sequence
from typing import Any

from ray_ns.errors import InputError
from ray_ns.store import run as runs
from ray_ns.store.commit import find_commit
from ray_ns.store.lease import STALE_SECONDS, heartbeat
from ray_ns.store.objects import ObjectStore, open_store

# What a training tells of itself while it is under way, below its stage's prefix.
PROGRESS = "progress.json"


def existing(url: str) -> str:
    """``url`` itself where a run has begun there, else ``InputError``."""
    if runs.read(open_store(url), runs.RUN) is None:
        raise InputError(f"{url}: no run has begun here (no {runs.RUN}). Give the run.dir of a run.")
    return url


def read_status(url: str) -> dict[str, Any]:
    """Every stage with its state and finished parts, the heartbeat's progress, and the driver in words.

    A training that is scored while it trains has a ``curve`` too: [step, loss, validation top-1] of every score.
    """
    store = open_store(existing(url))
    stages = []
    for prefix in runs.stages(store):
        commit = find_commit(store, prefix)
        parts = len(commit.parts) if commit else sum(1 for _ in store.list(f"{prefix}/done/"))
        curve = (commit.summary if commit else _progress(store, prefix)).get("curve")
        stages.append(
            {"stage": prefix, "state": "committed" if commit else "under way", "parts": parts}
            | ({"curve": curve} if curve else {})
        )
    beat = heartbeat(store)
    finished = find_commit(store, runs.last_stage(store)) is not None
    return {"stages": stages, "finished": finished, "heartbeat": beat, "driver": _in_words(beat, finished)}


def _progress(store: ObjectStore, prefix: str) -> dict[str, Any]:
    data = store.get(f"{prefix}/{PROGRESS}")
    return {} if data is None else dict(json.loads(data))


def scored(curve: Sequence[Sequence[float]]) -> str:
    """The last score of a curve in words, and the best one (the earlier of two equals) where that is another."""
    step, _, top1 = curve[-1]
    best_step, _, best = max(curve, key=lambda row: row[2])
    last = f"top-1 {top1:.1%} at step {step:.0f}"
    return last if best_step == step else f"{last}, at best {best:.1%} at step {best_step:.0f}"


def _in_words(beat: dict[str, Any], finished: bool) -> str:
    if finished:
        return "finished"
    if not beat or beat.get("released"):
        return "no driver at work; the same command goes on from here"
    age = time.time() - beat["time"]
    if age > STALE_SECONDS:
        return f"the driver (epoch {beat['epoch']}) has been silent for {age:.0f} s; the same command takes over"
    if "stage" not in beat:
        return f"driver at work (epoch {beat['epoch']}), between stages"
    left = ""
    if beat["seconds_left"] is not None:
        left = f", {beat['rate']:.3g} a second, {beat['seconds_left']:.0f} s left"
    note = f", {beat['note']}" if "note" in beat else ""
    done = f"{beat['done']} of {beat['total']} {beat['unit']}{left}{note}"
    return f"driver at work (epoch {beat['epoch']}): {beat['stage']}, {done}"
