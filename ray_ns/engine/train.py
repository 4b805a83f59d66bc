"""Train one network on Ray Train. Ray starts, watches and restarts the workers; the checkpoints are ours.

``ray.train.report`` is no commit (a checkpoint it took may be lost to a kill a second later), so the state goes to the
run's own store, pointer last, and whoever starts a worker again goes on from the newest pointer that verifies.
"""

import json
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ray_ns.config import Config, Student, Training, results_of
from ray_ns.engine.select import SELECTION
from ray_ns.engine.session import Session
from ray_ns.errors import RayNsError
from ray_ns.images import decode
from ray_ns.images.corpus import Corpus
from ray_ns.keyed import seed
from ray_ns.labels import schema
from ray_ns.models.names import WEIGHTS
from ray_ns.store import checkpoint
from ray_ns.store.commit import Commit, Part, Stage, StoredObject
from ray_ns.store.lease import fence
from ray_ns.store.manifest import canonical, digest
from ray_ns.store.objects import ObjectStore, open_store

if TYPE_CHECKING:
    from ray_ns.train.data import Images, Steps
    from ray_ns.train.state import TrainState

PROGRESS = "progress.json"
PROGRESS_SECONDS = 1.0


@dataclass(frozen=True)
class Task:
    """What one training's workers are told.

    ``selection`` is empty where there are labelled images only; ``first`` are the first weights, where they are some
    network's, and ``frozen`` is how many of its first layers keep them.
    """

    store_url: str
    prefix: str
    epoch: int
    config: Config
    recipe: Training
    batch: int
    corpora: dict[str, Corpus]
    selection: tuple[Part, ...]
    key: int
    first: StoredObject | None
    frozen: int


def train(
    session: Session,
    prefix: str,
    recipe: Training,
    number: int,
    selection: Commit | None,
    teacher: Commit | None = None,
) -> Commit:
    """The committed network of one training: one part with ``model.safetensors`` and ``config.json``.

    Without a ``selection`` it learns from labelled images only; a student's recipe then fills its whole batch with
    them, so that it sees as many images per step as the student does. ``number`` sets its seed apart from the others'.
    ``teacher``: whose weights a student begins with, if its recipe says so.
    """
    batch = recipe.batch
    if selection is None and isinstance(recipe, Student):
        batch *= 1 + recipe.ratio
    begin = teacher if isinstance(recipe, Student) and recipe.init == "teacher" else None
    key = seed(session.config.run.seed, number)
    return _committed(session, prefix, session.config, recipe, batch, key, selection, begin, 0)


def finetune(session: Session, prefix: str, recipe: Training, number: int, network: Commit) -> Commit:
    """The committed network that ``recipe.finetune`` makes of ``network``, as ``train`` gives it."""
    tuning = recipe.tuning
    assert tuning is not None
    config = session.config.at_size(recipe.finetune.size or session.config.data.size)
    key = seed(config.run.seed, number, 1)
    return _committed(session, prefix, config, tuning, tuning.batch, key, None, network, recipe.finetune.freeze)


def _committed(
    session: Session,
    prefix: str,
    config: Config,
    recipe: Training,
    batch: int,
    key: int,
    selection: Commit | None,
    begin: Commit | None,
    frozen: int,
) -> Commit:
    inputs = {
        "recipe": results_of(recipe),
        "batch": batch,
        "seed": str(key),
        "labelled": digest([vars(shard) for shard in session.corpora["labelled"].shards]),
        "selection": selection.digest if selection else None,
        "data": results_of(config.data),
        "begin": begin.digest if begin else None,
        "frozen": frozen,
        "workers": [config.cluster.train_workers, config.cluster.train_threads],
        "decode": decode.VERSION,
    }

    def work(stage: Stage) -> tuple[dict[str, Any], int]:
        session.reporter.begin(prefix, recipe.steps, "steps")
        if 0 not in stage.done():
            corpora = {name: session.corpora[name] for name in ("labelled", "pool")}
            parts = selection.parts if selection else ()
            epoch = session.lease.epoch
            first = begin.parts[0].objects[WEIGHTS] if begin else None
            task = Task(session.store.url, prefix, epoch, config, recipe, batch, corpora, parts, key, first, frozen)
            _run(session, task)
        facts = dict(stage.done()[0].facts)
        session.reporter.end(f"{facts['steps']} steps, loss {facts['loss']:.4f}, {facts['parameters']:,} parameters")
        return facts, 1

    return session.ensure(prefix, inputs, work)


def _run(session: Session, task: Task) -> None:
    """Train to the end on Ray Train, showing progress. What the workers raise on purpose is raised here."""
    session.ray()
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer

    cluster = session.config.cluster
    resources: dict[str, float] = {"CPU": cluster.train_threads}
    if cluster.train_gpus:
        resources["GPU"] = cluster.train_gpus
    trainer = TorchTrainer(
        work_on,
        train_loop_config={"task": task},
        torch_config=TorchConfig(backend=None if cluster.train_gpus else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=cluster.train_workers, use_gpu=bool(cluster.train_gpus), resources_per_worker=resources
        ),
        run_config=ray.train.RunConfig(
            # A name of its own per attempt: Ray would otherwise resume from records of its own.
            name=f"{task.prefix.replace('/', '-')}-{uuid.uuid4().hex[:8]}",
            storage_path=session.scratch(),
            failure_config=ray.train.FailureConfig(
                max_failures=cluster.max_failures, controller_failure_limit=cluster.max_failures
            ),
        ),
    )
    # In a thread of its own, because fit() would put its own handler of Ctrl-C in place of the session's.
    with session.following(lambda: _steps_done(session.store, task.prefix)), ThreadPoolExecutor(1) as thread:
        ended = thread.submit(trainer.fit).result().return_value
    for warning in ended.warnings:
        session.reporter.warn(warning)
    if ended.error is not None:
        raise ended.error


def _steps_done(store: ObjectStore, prefix: str) -> int | None:
    data = store.get(f"{prefix}/{PROGRESS}")
    return None if data is None else int(json.loads(data)["step"])


@dataclass(frozen=True)
class Ended:
    """How the first worker ended. Our own errors are carried, not raised: a retry would only meet them again."""

    error: RayNsError | None
    warnings: list[str]


def work_on(settings: dict[str, Any]) -> Ended:
    """What every training worker runs."""
    import ray.train

    context = ray.train.get_context()
    warnings: list[str] = []
    try:
        _train(settings["task"], context.get_world_rank(), context.get_world_size(), warnings)
    except RayNsError as error:
        return Ended(error, warnings)
    return Ended(None, warnings)


def _train(task: Task, rank: int, world: int, warnings: list[str]) -> None:
    import ray.train.torch
    import torch

    from ray_ns.models.zoo import weights
    from ray_ns.train.fit import Worker, fit
    from ray_ns.train.state import TrainState

    torch.set_num_threads(task.config.cluster.train_threads)
    device = torch.device("cuda" if torch.cuda.is_available() and task.config.cluster.train_gpus else "cpu")
    store = open_store(task.store_url)
    first = weights(task.first.read(store)) if task.first else None
    state = TrainState.fresh(task.recipe, task.config.data, task.key, device, first, task.frozen)
    found = checkpoint.latest(store, task.prefix, warnings.append)
    if found is not None:
        state.load(found.step, found.tensors, found.facts["optimizer"])
    losses: list[float] = list(found.facts["losses"]) if found else []
    network = ray.train.torch.prepare_model(state.network, move_to_device=device)
    keeper = _Keeper(store, task, losses)
    worker = Worker(device, task.key, rank, task.config.cluster.train_loaders)
    fit(
        task.recipe,
        task.config.data,
        steps_of(task, rank, world, selected(task)),
        state,
        worker,
        network,
        keeper.after_step if rank == 0 else _nothing,
    )
    if rank == 0:
        keeper.publish(state)


def _nothing(state: "TrainState", loss: float) -> None:
    """Only the first worker keeps records."""


class _Keeper:
    """What the first worker keeps of a training: losses, progress, checkpoints and, at the end, the network."""

    def __init__(self, store: ObjectStore, task: Task, losses: list[float]) -> None:
        self._store, self._task, self._losses = store, task, losses
        self._every = task.config.cluster.checkpoint_steps
        self._fence = fence(store, task.epoch)
        self._said = 0.0

    def after_step(self, state: "TrainState", loss: float) -> None:
        self._losses.append(loss)
        if state.step % self._every == 0 and state.step < self._task.recipe.steps:
            self._fence()
            facts = {"optimizer": state.facts(), "losses": self._losses}
            checkpoint.save(self._store, self._task.prefix, checkpoint.Checkpoint(state.step, state.tensors(), facts))
        if time.monotonic() - self._said > PROGRESS_SECONDS:
            self._said = time.monotonic()
            self._store.put(f"{self._task.prefix}/{PROGRESS}", canonical({"step": state.step, "loss": loss}))

    def publish(self, state: "TrainState") -> None:
        from ray_ns.models.zoo import parameters, to_files

        last = self._losses[-20:]
        facts = {
            "steps": state.step,
            "loss": sum(last) / len(last),
            "parameters": parameters(state.network),
            "size": self._task.config.data.size,
            "losses": [round(loss, 6) for loss in self._losses[:: max(1, len(self._losses) // 50)]],
        }
        files = to_files(state.result, self._task.config.data)
        Stage(self._store, self._task.prefix, self._fence).publish(0, files, facts)
        checkpoint.clear(self._store, self._task.prefix)


def steps_of(task: Task, rank: int, world: int, chosen: pa.Table | None) -> "Steps":
    """The batches of one worker; ``chosen``: the selected images with labels and copies, as ``selected`` gives."""
    from ray_ns.images.augment import per_image
    from ray_ns.train.data import Steps

    augment = per_image(task.recipe.noise, task.config.data.size)
    pseudo = pseudo_labelled(task, chosen) if chosen is not None else None
    ratio = task.recipe.ratio if isinstance(task.recipe, Student) else 0
    return Steps(labelled(task), pseudo, task.batch, ratio, task.key, rank, world, augment)


def labelled(task: Task) -> "Images":
    """The labelled images with smoothed one-hot targets."""
    import torch

    from ray_ns.images.corpus import image_ids
    from ray_ns.models.loss import smooth
    from ray_ns.train.data import Images, visits_of

    corpus, data = task.corpora["labelled"], task.config.data
    per_shard = corpus.labels(data.classes)
    truth = np.concatenate(per_shard)
    ids = np.concatenate(
        [image_ids(shard.ordinal, np.arange(len(part))) for shard, part in zip(corpus.shards, per_shard, strict=True)]
    )

    def targets(rows: np.ndarray) -> np.ndarray:
        return smooth(torch.from_numpy(truth[rows]), data.classes, task.recipe.label_smoothing).numpy()

    visits = visits_of(corpus, ids, np.ones(len(ids), np.int32))
    return Images(corpus, visits, _decode(task), targets)


def _decode(task: Task) -> decode.Decode:
    data = task.config.data
    return decode.Decode(data.size, data.channels, squash=task.recipe.noise.crop != "random_resized")


def selected(task: Task) -> pa.Table | None:
    """The task's selection, ascending by image id; None where it has none."""
    if not task.selection:
        return None
    store = open_store(task.store_url)
    stored = [part.objects[SELECTION] for part in task.selection]
    table = pa.concat_tables([schema.from_parquet(it.read(store), it.key) for it in stored])
    return table.sort_by("image_id").combine_chunks()


def pseudo_labelled(task: Task, table: pa.Table) -> "Images":
    """The selected images of the pool with the teacher's labels, soft or hard."""
    import torch

    from ray_ns.models.loss import sharpen, smooth
    from ray_ns.train.data import Images, visits_of

    assert isinstance(task.recipe, Student)
    recipe, data = task.recipe, task.config.data

    def targets(rows: np.ndarray) -> np.ndarray:
        chosen = table.take(pa.array(rows))
        if recipe.targets == "hard":
            hard = torch.from_numpy(chosen["label"].to_numpy().astype(np.int64))
            return smooth(hard, data.classes, recipe.label_smoothing).numpy()
        soft = torch.from_numpy(schema.soft_targets(chosen, data.classes))
        return sharpen(soft, recipe.temperature).numpy()

    corpus = task.corpora["pool"]
    visits = visits_of(corpus, table["image_id"].to_numpy(), table["copies"].to_numpy())
    return Images(corpus, visits, _decode(task), targets)
