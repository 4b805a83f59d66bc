"""How fast one worker trains on this machine, beside timm's own way and beside the bare step.

Four contenders train the same network with the same batch, augmentation, optimiser and precision on the same 4,000
realistic JPEGs (those of benchmarks.label), each in processes of its own; they take turns of a few seconds, all the
others being stopped meanwhile. ``ours`` is train.fit over our data path, ``timm`` is timm's loader, transform and loop,
``bare`` is our step on one batch that is decoded already, ``saving`` is ours with a checkpoint every few steps, from
which the cost of one at the default interval follows. ``--json`` prints one object per case as the last lines.
"""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.label import POOL, ROOT, run_cases

SIZE, CLASSES, BATCH, OPERATIONS, MAGNITUDE = 224, 1000, 32, 2, 9
SAVE_EVERY = 5
START_LIMIT, WARM, TURN = 200.0, 5.0, 5.0
FIRST_STEP = 24  # by then the row groups of the first windows are read, as they are through nearly all of a training
TASK, EVENTS = "RAY_NS_BENCH_TASK", "RAY_NS_BENCH_EVENTS"
TINY = {"model": "test_vit", "args": {"img_size": SIZE, "patch_size": 32, "depth": 1}}
CASES: dict[str, dict[str, Any]] = {
    "decode": {**TINY, "threads": 1, "loaders": 1},
    "resnet18": {"model": "resnet18", "args": {}, "threads": 1, "loaders": 1},
    "efficientnet_b0": {"model": "efficientnet_b0", "args": {}, "threads": 1, "loaders": 1},
    "resnet18-2": {"model": "resnet18", "args": {}, "threads": 2, "loaders": 1},
}
CONTENDERS = ("ours", "timm", "bare", "saving")


class Contender:
    """One contender's processes, and its own clock, which stands while they are stopped."""

    def __init__(self, name: str, case: str) -> None:
        """Start it, let it warm up, stop it."""
        self._folder = tempfile.TemporaryDirectory()
        self._events = Path(self._folder.name) / "events"
        self._log = Path(self._folder.name) / "log"
        self._turns: list[tuple[float, float]] = []
        threads = str(CASES[case]["threads"])
        began = time.monotonic()
        self._child = subprocess.Popen(
            [sys.executable, "-c", "from benchmarks import train; train.contend()"],
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": threads, EVENTS: str(self._events)}
            | {TASK: json.dumps([name, CASES[case], self._folder.name])},
            stdout=self._log.open("w"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        while len(self._lines()) < 2:
            time.sleep(0.2)
            self._check(name)
            if time.monotonic() - began > START_LIMIT:
                raise RuntimeError(f"{name} did not start:\n{self._log.read_text()}")
        time.sleep(WARM)
        self._stop(began)

    def turn(self, name: str) -> None:
        """Let it run for a turn."""
        began = time.monotonic()
        os.killpg(self._child.pid, signal.SIGCONT)
        time.sleep(TURN)
        self._check(name)
        self._stop(began)

    def rate(self) -> float:
        """Images per second of its own clock since it was warm."""
        lines = self._lines()
        edges = np.array(self._turns).ravel()
        own = np.array([[0.0, end - begin] for begin, end in self._turns]).ravel().cumsum()
        at, done = np.interp(lines[:, 0], edges, own), lines[:, 1].cumsum()
        first = int(np.searchsorted(at, own[1]))
        return float((done[-1] - done[first]) / (at[-1] - at[first]))

    def end(self) -> None:
        """Kill its processes and no other."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()
        self._folder.cleanup()

    def _stop(self, began: float) -> None:
        os.killpg(self._child.pid, signal.SIGSTOP)
        self._turns.append((began, time.monotonic()))

    def _check(self, name: str) -> None:
        if self._child.poll() is not None:
            raise RuntimeError(f"{name} ended early:\n{self._log.read_text()}")

    def _lines(self) -> np.ndarray:
        """(n, 2): when a step was done, and how many images it took."""
        text = self._events.read_text() if self._events.exists() else ""
        return np.array([line.split() for line in text.splitlines(True) if line.endswith("\n")], float).reshape(-1, 2)


def compete(case: str, seconds: float) -> dict[str, Any]:
    """Turns round and round until each has had ``seconds``; the row of the table."""
    running: dict[str, Contender] = {}
    try:
        for name in CONTENDERS:
            running[name] = Contender(name, case)
        for _ in range(-int(-seconds // TURN)):
            for name, one in running.items():
                one.turn(name)
        rates = {name: one.rate() for name, one in running.items()}
    finally:
        for one in running.values():
            one.end()
    from ray_ns.config import Cluster

    share = SAVE_EVERY / Cluster().checkpoint_steps
    return {
        "case": case,
        "ours_img_s": round(rates["ours"], 2),
        "timm_img_s": round(rates["timm"], 2),
        "bare_img_s": round(rates["bare"], 2),
        "ratio_timm": round(rates["ours"] / rates["timm"], 3),
        "ratio_bare": round(rates["ours"] / rates["bare"], 3),
        "checkpoint_stall": round((rates["ours"] / rates["saving"] - 1) * share, 4),
    }


class Contest:
    """What the contenders share: network, recipe, and a line per step."""

    def __init__(self, case: dict[str, Any], folder: str) -> None:
        import torch

        from ray_ns.config import Data, Training
        from ray_ns.methods.objectives import Supervised

        torch.set_num_threads(case["threads"])
        self.case, self.folder = case, Path(folder)
        self.data = Data(classes=CLASSES, labelled="-", validation="-", test="-", pool=str(POOL), size=SIZE)
        noise = {"crop": "random_resized", "augment": "randaugment", "operations": OPERATIONS, "magnitude": MAGNITUDE}
        model = {"name": case["model"], "args": case["args"]}
        optimizer = {"lr": 0.01, "warmup_steps": 10}
        values = {"model": model, "steps": 10**6, "batch": BATCH, "noise": noise, "optimizer": optimizer}
        values |= {"precision": "bfloat16"}
        self.recipe = Training.model_validate(values)
        self.objective = Supervised(self.recipe, BATCH)
        self._events = Path(os.environ[EVENTS]).open("a", buffering=1)  # noqa: SIM115 - as long as the process

    def state(self) -> Any:
        import torch

        from ray_ns.train.state import TrainState

        return TrainState.fresh(self.objective, self.data, 0, torch.device("cpu"))

    def event(self) -> None:
        self._events.write(f"{time.monotonic()} {BATCH}\n")

    def steps(self) -> Any:
        """Our data path over the pool, with targets by the row."""
        from ray_ns.corpora.corpus import Corpus, image_ids
        from ray_ns.images.augment import per_image
        from ray_ns.images.decode import Decode
        from ray_ns.train.data import Images, Steps, View
        from ray_ns.train.visits import visits_of

        corpus = Corpus.scan(str(POOL), "image", None)
        rows = [sum(corpus.open(shard).group_rows) for shard in corpus.shards]
        ids = np.concatenate([image_ids(s.ordinal, np.arange(n)) for s, n in zip(corpus.shards, rows, strict=True)])
        eye = np.eye(CLASSES, dtype=np.float32)
        visits = visits_of(corpus, ids, np.ones(len(ids), np.int32))
        images = Images(corpus, visits, [View(Decode(SIZE, 3, "none"))], lambda at: eye[at % CLASSES])
        return Steps([(images, BATCH)], 0, 0, 1, per_image(self.recipe.noise, SIZE))


def ours(contest: Contest, save_every: int | None = None) -> None:
    """The worker's loop."""
    import torch

    from ray_ns.config import Cluster
    from ray_ns.engine.workers.recorder import Destination, Recorder
    from ray_ns.store.checkpoint import place
    from ray_ns.store.lease import Lease
    from ray_ns.store.objects import open_store
    from ray_ns.train.fit import Worker, fit

    state, steps, recipe, data = contest.state(), contest.steps(), contest.recipe, contest.data
    cluster = Cluster(checkpoint_steps=save_every or 10**6)
    store = open_store(str(contest.folder / "run"))
    to = Destination(store, "train", place("train", "0"), Lease(store).held())
    recorder = Recorder(to, cluster, recipe, data, steps, None, lambda _: False)

    for step in range(FIRST_STEP):
        steps[step]  # loader processes are forked with what this one holds
    state.step = FIRST_STEP

    def after_step(state: Any, loss: float) -> None:
        recorder.after_step(state, loss)
        contest.event()

    worker = Worker(torch.device("cpu"), 0, 0, contest.case["loaders"])
    fit(contest.objective, data, steps, state, worker, after_step)


def bare(contest: Contest) -> None:
    """Our step on one batch, over and over."""
    import torch

    from ray_ns.train.step import Step

    state, batch = contest.state(), contest.steps()[0]
    step = Step(contest.objective, contest.data, 0, torch.device("cpu"), 0)
    while True:
        step(state, batch)
        contest.event()


def timm(contest: Contest) -> None:
    """Timm's loader with its transform, and the loop of its train.py at our precision and memory layout."""
    import torch
    from timm.data import create_loader
    from timm.loss import SoftTargetCrossEntropy

    from ray_ns.train.optim import schedule

    state = contest.state()
    loader = create_loader(
        _images(),
        (3, SIZE, SIZE),
        BATCH,
        is_training=True,
        # mmax: at 10 timm posterises to no bit at all, which Pillow 12 refuses
        auto_augment=f"rand-m{MAGNITUDE}-n{OPERATIONS}-mstd0.5-inc1-mmax{MAGNITUDE}",
        interpolation="bicubic",
        mean=tuple(contest.data.mean),
        std=tuple(contest.data.std),
        num_workers=contest.case["loaders"],
        device=torch.device("cpu"),
    )
    loss_of, rate = SoftTargetCrossEntropy(), schedule(state.kept.optimizer, contest.recipe)
    state.kept.network.train()
    while True:
        for images, labels in loader:
            pixels = images.contiguous(memory_format=torch.channels_last)
            targets = torch.nn.functional.one_hot(labels, CLASSES).float()
            with torch.autocast("cpu", torch.bfloat16):
                loss = loss_of(state.kept.network(pixels), targets)
            state.kept.optimizer.zero_grad()
            loss.backward()
            state.kept.optimizer.step()
            state.step += 1
            rate.step_update(state.step)
            loss.item()
            contest.event()


def _images() -> Any:
    """The 4,000 different JPEGs in memory, read as timm reads a file."""
    import pyarrow.parquet as pq
    from timm.data import ImageDataset

    files = sorted(POOL.glob("*.parquet"))[:2]
    encoded = [value for file in files for value in pq.read_table(file)["image"].to_pylist()]

    class Reader:
        """What timm's dataset asks of a reader."""

        def __len__(self) -> int:
            return len(encoded)

        def __getitem__(self, place: int) -> tuple[io.BytesIO, int]:
            return io.BytesIO(encoded[place]), place % CLASSES

        def filename(self, place: int, *_: Any) -> str:
            return str(place)

    return ImageDataset("", reader=Reader())


def contend() -> None:
    """Run the contender that the environment describes until it is killed."""
    from ray_ns.models.memory import keep_memory

    name, case, folder = json.loads(os.environ[TASK])
    if name != "timm":  # as every worker of ours does
        keep_memory()
    contest = Contest(case, folder)
    {"ours": ours, "timm": timm, "bare": bare, "saving": lambda it: ours(it, SAVE_EVERY)}[name](contest)


if __name__ == "__main__":
    run_cases(__doc__, list(CASES), lambda case, seconds: [compete(case, seconds)])
