"""Where a run stands, read from its directory alone."""

import time
from typing import Any

from ray_ns.errors import InputError
from ray_ns.store import run as runs
from ray_ns.store.commit import find_commit
from ray_ns.store.lease import STALE_SECONDS, heartbeat
from ray_ns.store.objects import open_store


def existing(url: str) -> str:
    """``url`` itself where a run has begun there, else ``InputError``."""
    if runs.read(open_store(url), runs.RUN) is None:
        raise InputError(f"{url}: no run has begun here (no {runs.RUN}). Give the run.dir of a run.")
    return url


def read_status(url: str) -> dict[str, Any]:
    """Every stage with its state and finished parts, the heartbeat's progress, and the driver in words."""
    store = open_store(existing(url))
    stages = []
    for prefix in runs.stages(store):
        commit = find_commit(store, prefix)
        parts = len(commit.parts) if commit else sum(1 for _ in store.list(f"{prefix}/done/"))
        stages.append({"stage": prefix, "state": "committed" if commit else "under way", "parts": parts})
    beat = heartbeat(store)
    finished = find_commit(store, runs.last_stage(store)) is not None
    return {"stages": stages, "finished": finished, "heartbeat": beat, "driver": _in_words(beat, finished)}


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
    done = f"{beat['done']} of {beat['total']} {beat['unit']}{left}"
    return f"driver at work (epoch {beat['epoch']}): {beat['stage']}, {done}"
