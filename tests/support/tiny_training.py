"""A training of 20 steps in plain processes, to be killed at will: the worker's own recorder, no Ray."""

import json
import multiprocessing
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from support.held import hold

from ray_ns.config import Config, Student
from ray_ns.corpora.corpus import Corpus
from ray_ns.engine.workers.recorder import Destination, Recorder
from ray_ns.engine.workers.score import Score
from ray_ns.images.decode import Decode
from ray_ns.methods.objectives import NoisyStudent
from ray_ns.store import checkpoint, objects
from ray_ns.train.data import Images, Steps, View
from ray_ns.train.fit import Worker, fit
from ray_ns.train.objective import Objective
from ray_ns.train.state import TrainState
from ray_ns.train.visits import visits_of

STEPS, EVERY, KEY = 20, 3, 7
PREFIX = "rounds/1/train"
PLACE = checkpoint.place(PREFIX, "0" * 64)
CPU = torch.device("cpu")
Made = Callable[[Student], Objective]


@dataclass(frozen=True)
class Kill:
    """Where SIGKILL falls: after ``step``, or at the ``nth`` write of a key that matches ``pattern``."""

    step: int = 0
    pattern: str = ""
    nth: int = 1
    moment: str = "before"  # before, inside (the bytes are on disk, not yet under their name), after


def write_images(folder: Path, count: int) -> None:
    """Noisy grey 16 x 16 images, the class of each in its brightness and in ``label``, in row groups of 4."""
    rng = np.random.default_rng(count)
    level = 40 + 80 * (np.arange(count) % 3)[:, None, None]
    pixels = (level + rng.integers(-30, 31, (count, 16, 16))).clip(0, 255).astype(np.uint8)
    folder.mkdir(parents=True)
    files = []
    for image in pixels:
        path = folder / "image.png"
        Image.fromarray(image).save(path)
        files.append(path.read_bytes())
        path.unlink()
    pq.write_table(pa.table({"image": files, "label": np.arange(count) % 3}), folder / "0.parquet", row_group_size=4)


def steps_in(
    folder: Path,
    batch: int = 4,
    ratio: int = 2,
    rank: int = 0,
    world: int = 1,
    augment: Callable[[np.ndarray, int], np.ndarray] | None = None,
    sharpness: float = 0.8,
    views: Sequence[bool] = (True,),
) -> Steps:
    """Batches of 9 labelled images and 14 with soft labels, some of them in copies, and in ``views``, noised or not."""

    def images(name: str, count: int, sharpness: float, views: Sequence[bool] = (True,)) -> Images:
        if not (folder / name).exists():
            write_images(folder / name, count)
        corpus = Corpus.scan(str(folder / name), "image", None)
        table = np.full((count, 3), (1 - sharpness) / 2, np.float32)
        table[np.arange(count), np.arange(count) % 3] = sharpness
        visits = visits_of(corpus, np.arange(count), 1 + np.arange(count) % (3 if name == "pool" else 1))
        return Images(corpus, visits, [View(Decode(16, 1), noised) for noised in views], lambda rows: table[rows])

    sources = [(images("labelled", 9, 1.0), batch)]
    if ratio:
        sources.append((images("pool", 14, sharpness, views), batch * ratio))
    return Steps(sources, KEY, rank, world, augment)


def score_in(folder: Path, config: Config) -> Score:
    """The score on 20 images like those that train."""
    if not (folder / "validation").exists():
        write_images(folder / "validation", 20)
    return Score(config, Corpus.scan(str(folder / "validation"), "image", "label"), CPU)


def train(folder: Path, data: Path, config: Config, kill: Kill | None = None, made: Made = NoisyStudent) -> None:
    """Train to the end, or to the kill, from what the folder holds; at the end the whole state lies in it."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    recipe = Student.model_validate({**config.student.model_dump(exclude_unset=True), "steps": STEPS})
    if kill and kill.pattern:
        _die_at_write(kill)
    store = objects.LocalStore(folder)
    warnings: list[str] = []
    found = checkpoint.latest(store, PLACE, warnings.append)
    objective = made(recipe)
    state = TrainState.fresh(objective, config.data, KEY + bool(found), CPU)  # what is not restored shows
    if found:
        state.load(found.step, found.tensors, found.facts["optimizer"])
    cluster = config.cluster.model_copy(update={"checkpoint_steps": EVERY})
    steps = steps_in(data, views=objective.sources()[-1].views)
    to = Destination(store, PREFIX, PLACE, hold(store))
    recorder = Recorder(to, cluster, recipe, config.data, steps, found, lambda step: False)

    def after_step(state: TrainState, loss: float) -> None:
        recorder.after_step(state, loss)
        if kill and state.step == kill.step:
            os.kill(os.getpid(), signal.SIGKILL)

    score = score_in(data, config) if recipe.eval_steps else None
    fit(objective, config.data, steps, state, Worker(CPU, KEY), after_step, score)
    recorder.publish(state)
    checkpoint.clear(store, PREFIX)
    save_file(state.tensors(), folder / "end.safetensors")
    end = {"losses": recorder._losses, "facts": state.facts(), "warnings": warnings, "from": found.step if found else 0}
    (folder / "end.json").write_text(json.dumps(end))


@cache
def forks() -> Any:
    """A process that has imported everything and forks for each training: a start costs milliseconds, not seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["support.tiny_training"])
    path = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # it would otherwise not find what it shall preload
    try:
        forkserver.ensure_running()
    finally:
        os.environ.pop("PYTHONPATH")
        os.environ.update({"PYTHONPATH": path} if path is not None else {})
    return context


def in_a_process(folder: Path, data: Path, config: Config, kill: Kill | None = None, made: Made = NoisyStudent) -> int:
    """``train`` in a process of its own; its exit code."""
    process = forks().Process(target=train, args=(folder, data, config, kill, made))
    process.start()
    process.join(120)
    assert process.exitcode is not None
    return process.exitcode


def end_of(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
    """The state after the last step, and what else was noted."""
    return load_file(folder / "end.safetensors"), json.loads((folder / "end.json").read_text())


def _die_at_write(kill: Kill) -> None:
    seen = 0
    here = False
    put, replace = objects.LocalStore.put, os.replace

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def dying_put(store: objects.LocalStore, key: str, data: bytes) -> None:
        nonlocal seen, here
        seen += bool(re.search(kill.pattern, key))
        here = bool(re.search(kill.pattern, key)) and seen == kill.nth
        if here and kill.moment == "before":
            die()
        put(store, key, data)
        if here and kill.moment == "after":
            die()

    def dying_replace(*paths: str) -> None:
        if here and kill.moment == "inside":
            die()
        replace(*paths)

    objects.LocalStore.put, os.replace = dying_put, dying_replace
