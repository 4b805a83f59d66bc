"""Where a run stands, read from its directory alone."""

import re
import time
from collections.abc import Sequence
from typing import Any

from ray_ns.errors import InputError
from ray_ns.observe import in_time, in_words
from ray_ns.store import hints, layout
from ray_ns.store.commit import done_keys, find_commit
from ray_ns.store.lease import STALE_SECONDS, heartbeat
from ray_ns.store.objects import open_store

# Where a training reports its progress, below its stage's prefix.
PROGRESS = "progress.json"


def existing(url: str) -> str:
    """``url`` itself where a run has begun there, else ``InputError``."""
    store = open_store(url)
    if layout.record(store) is None:
        layout.refuse_lost(store)
        raise InputError(f"{url}: no run has begun here (no {layout.RUN}). Give the run.dir of a run.")
    return url


def read_status(url: str, order: Sequence[str]) -> dict[str, Any]:
    """Every stage in the order of the run, with its state and finished parts; the heartbeat; what the driver does.

    ``order``: the names of the stages of a turn, or of an ingest, as a run does them.
    A training that is scored on the way also has a ``curve``: [step, loss, validation top-1] of every score.
    """
    store = open_store(existing(url))
    stages = []
    for prefix in sorted(layout.stages(store), key=lambda prefix: run_order(prefix, order)):
        commit = find_commit(store, prefix)
        parts = len(commit.parts) if commit else len(done_keys(store, prefix))
        curve = commit.summary.get("curve") if commit else hints.curve(hints.read(store, f"{prefix}/{PROGRESS}"))
        stages.append(
            {"stage": prefix, "state": "committed" if commit else "under way", "parts": parts}
            | ({"curve": curve} if curve else {})
        )
    beat = heartbeat(store)
    finished = find_commit(store, layout.last_stage(store)) is not None
    return {"stages": stages, "finished": finished, "heartbeat": beat, "driver": _in_words(beat, finished)}


def run_order(prefix: str, order: Sequence[str]) -> tuple[int, bool, int, int, int, str, int, str]:
    """The key that sorts stages in the order of the run: by generation, turn, and place in the turn.

    All rounds come first, then each control with its report: those of the rounds that the run began with, and so on.
    """
    pattern = rf"(?:pool-(\d+)/)?(?:rounds-(\d+)/)?(?:rounds/(\d+)/|({layout.CONTROLS})/)?(.*)"
    found = re.fullmatch(pattern, prefix, re.DOTALL)
    pool, rounds, turn, control, name = found.groups() if found else (None, None, None, None, prefix)
    stage, _, number = name.partition("-")
    after = 2 if stage == "report" else 1 if control else 0
    ingested = int(number) if number.isdecimal() else 1
    place = order.index(stage) if stage in order else len(order)
    return int(pool or ingested), after > 0, int(rounds or 0), after, int(turn or 0), control or "", place, prefix


def scored(curve: Sequence[Sequence[float]]) -> str:
    """The last score of a curve in words, and the best one (the earlier of two equals) if that is another."""
    step, _, top1 = curve[-1]
    best_step, _, best = max(curve, key=lambda row: row[2])
    last = f"top-1 {top1:.1%} at step {step:.0f}"
    return last if best_step == step else f"{last}, at best {best:.1%} at step {best_step:.0f}"


def _in_words(beat: dict[str, Any], finished: bool) -> str:
    if finished:
        return "finished"
    if not beat or beat.get("released"):
        return "no driver at work; the same command goes on from here"
    try:
        return _at_work(beat)
    except (KeyError, TypeError, ValueError):
        return "the driver's heartbeat is damaged, so it is unknown whether one is at work; the same command finds out"


def _at_work(beat: dict[str, Any]) -> str:
    age = time.time() - beat["time"]
    if age > STALE_SECONDS:
        return f"the driver (epoch {beat['epoch']}) has been silent for {in_time(age)}; the same command takes over"
    if "stage" not in beat:
        return f"driver at work (epoch {beat['epoch']}), between stages"
    return f"driver at work (epoch {beat['epoch']}): {beat['stage']}, {in_words(beat)}"
