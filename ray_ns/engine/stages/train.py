"""Train one network on Ray Train. Ray starts, watches and restarts the workers; the checkpoints are ours.

``ray.train.report`` is no commit (a checkpoint it took may be lost to a kill a second later), so the state goes to the
run's own store, pointer last, and whoever starts a worker again goes on from the newest pointer that verifies.
"""

import os
import time
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ray_ns.artifacts.selection import Selected
from ray_ns.config import Config, Student, Training, results_of
from ray_ns.corpora.corpus import Corpus
from ray_ns.corpora.unreadable import in_words
from ray_ns.engine.run import Run, local_cpus
from ray_ns.engine.workers.recorder import Recorder
from ray_ns.errors import RayNsError
from ray_ns.images import decode
from ray_ns.keyed import seed
from ray_ns.models.files import WEIGHTS
from ray_ns.seals import digest
from ray_ns.store import checkpoint, hints
from ray_ns.store.commit import Commit, Output, Part, StoredObject
from ray_ns.store.lease import Holder, fence
from ray_ns.store.objects import ObjectStore
from ray_ns.store.status import PROGRESS, scored

if TYPE_CHECKING:
    from ray_ns.train.data import Images, Steps
    from ray_ns.train.state import TrainState

COST = "cost.json"


@dataclass(frozen=True)
class Task:
    """What one training's workers are told.

    ``checkpoints``: where those of this training lie. ``selection`` is empty where there are labelled images only;
    ``first`` are the first weights, where they are some network's, and ``frozen`` is how many of its first layers keep
    them.
    ``watched``: Ray watches for machines that are about to be taken away.
    """

    store: ObjectStore
    prefix: str
    checkpoints: str
    holder: Holder
    config: Config
    recipe: Training
    batch: int
    corpora: dict[str, Corpus]
    selection: tuple[Part, ...]
    key: int
    watched: bool
    first: StoredObject | None
    frozen: int
    class_names: tuple[str, ...] | None = None


def train(
    run: Run,
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
    key = seed(run.config.run.seed, number)
    return _committed(run, prefix, run.config, recipe, batch, key, selection, begin, 0)


def finetune(run: Run, prefix: str, recipe: Training, number: int, network: Commit) -> Commit:
    """The committed network that ``recipe.finetune`` makes of ``network``, as ``train`` gives it."""
    tuning = recipe.tuning
    assert tuning is not None
    config = run.config.at_size(recipe.finetune.size or run.config.data.size)
    key = seed(config.run.seed, number, 1)
    return _committed(run, prefix, config, tuning, tuning.batch, key, None, network, recipe.finetune.freeze)


def _committed(
    run: Run,
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
        "labelled": digest([vars(shard) for shard in run.corpora["labelled"].shards]),
        "selection": selection.digest if selection else None,
        "data": results_of(config.data),
        "begin": begin.digest if begin else None,
        "frozen": frozen,
        "workers": [config.cluster.train_workers, config.cluster.train_threads],
        "decode": decode.VERSION,
        "class_names": digest(run.class_names),
    }
    used = ["labelled", "pool"]
    if recipe.eval_steps is not None:
        used.append("validation")
        inputs["scored"] = {
            "validation": digest([vars(shard) for shard in run.corpora["validation"].shards]),
            "batch": [config.label.slice_rows, config.label.precision],
        }

    def work(stage: Output) -> tuple[dict[str, Any], int]:
        run.reporter.begin(prefix, recipe.steps, "steps")
        if 0 not in stage.done():
            corpora = {name: run.corpora[name] for name in used}
            parts = selection.parts if selection else ()
            place, holder = checkpoint.place(prefix, digest(inputs)), run.lease.held()
            first = begin.parts[0].objects[WEIGHTS] if begin else None
            run.ray_libraries()
            watched = os.environ.get("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "1") != "0"
            store, names = run.store, run.class_names
            task = Task(
                store, prefix, place, holder, config, recipe, batch, corpora, parts, key, watched, first, frozen, names
            )
            _run(run, task)
        run.lease.check()
        checkpoint.clear(run.store, prefix)
        facts = dict(stage.done()[0].facts)
        told = f"{facts['steps']} steps, loss {facts['loss']:.4f}, {facts['parameters']:,} parameters"
        run.reporter.end(told + _kept(facts, recipe))
        return facts, 1

    return run.ensure(prefix, inputs, work)


def _kept(facts: dict[str, Any], recipe: Training) -> str:
    """How the training scored on validation images, why it ended, and which weights are committed."""
    if "curve" not in facts:
        return ""
    if "kept" not in facts:
        return f", {scored(facts['curve'])}; kept: the last step's weights"
    early = f", no better one in {recipe.patience} scores" if facts["steps"] < recipe.steps else ""
    return f"{early}; kept: the weights of step {facts['kept']['step']}, top-1 {facts['kept']['top1']:.1%}"


def _run(run: Run, task: Task) -> None:
    """Train to the end on Ray Train, showing progress. What the workers raise on purpose is raised here."""
    import ray.train
    from ray.train.torch import TorchTrainer

    from ray_ns.engine.workers.leave import ListeningTorchConfig

    cluster = run.config.cluster
    counts = cluster.worker_counts
    workers = counts[0] if len(counts) == 1 else (counts[0], counts[-1])
    resources: dict[str, float] = {"CPU": cluster.train_threads}
    if cluster.train_gpus:
        resources["GPU"] = cluster.train_gpus
    trainer = TorchTrainer(
        work_on,
        train_loop_config={"task": task},
        torch_config=ListeningTorchConfig(
            backend="nccl" if cluster.train_gpus else "gloo", meet_in=run.scratch() if run.local else None
        ),
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers, use_gpu=bool(cluster.train_gpus), resources_per_worker=resources
        ),
        run_config=ray.train.RunConfig(
            # A name of its own per attempt: Ray would otherwise resume from records of its own.
            name=f"{task.prefix.replace('/', '-')}-{uuid.uuid4().hex[:8]}",
            storage_path=run.scratch(),
            failure_config=ray.train.FailureConfig(
                max_failures=cluster.max_failures, controller_failure_limit=cluster.max_failures
            ),
        ),
    )
    began = time.monotonic()
    # In a thread of its own, because fit() would put its own handler of Ctrl-C in place of the run's.
    with run.following(lambda: _done(run.store, task.prefix)), ThreadPoolExecutor(1) as thread:
        ended = thread.submit(trainer.fit).result().return_value
    for warning in ended.warnings:
        run.reporter.warn(warning)
    if ended.error is not None:
        raise ended.error
    if ended.cost:
        run.lease.check()
        hints.write(run.store, f"{task.prefix}/{COST}", _cost(ended.cost, time.monotonic() - began))


def _cost(cost: dict[str, Any], wall: float) -> dict[str, float]:
    """What the training cost, beside its commit because no two are alike: shares of its seconds, read amplification."""
    return {
        "seconds": round(wall, 3),
        "goodput": round(cost["useful_seconds"] / wall, 4),
        "checkpoint_stall": round(cost["waited_seconds"] / wall, 4),
        "read_amplification": round(cost["bytes_read"] / max(cost["bytes_used"], 1), 4),
    }


def _done(store: ObjectStore, prefix: str) -> tuple[int, str] | None:
    """Steps done and the last score, as the first worker noted them."""
    found = hints.read(store, f"{prefix}/{PROGRESS}")
    if not hints.number(found.get("step")):
        return None
    curve = hints.curve(found)
    return int(found["step"]), scored(curve) if curve else ""


@dataclass(frozen=True)
class Ended:
    """How the first worker ended. Errors that a retry would only meet again are carried, not raised."""

    error: RayNsError | None
    warnings: list[str]
    cost: dict[str, Any]


def work_on(settings: dict[str, Any]) -> Ended:
    """What every training worker runs."""
    import ray.train

    from ray_ns.engine.workers.leave import left
    from ray_ns.train.fit import LeavingError
    from ray_ns.train.step import NotFiniteError

    context = ray.train.get_context()
    world = context.get_world_size()
    warnings: list[str] = []
    try:
        return Ended(None, warnings, _train(settings["task"], context.get_world_rank(), world, warnings))
    except LeavingError:  # Ray is to start the workers again, elsewhere
        raise
    except NotFiniteError as error:
        return Ended(error, warnings, {})
    except RayNsError as error:
        if world > 1:  # the others do not know of it, and would wait for this worker for ever
            raise
        return Ended(error, warnings, {})
    finally:
        left.set()


def _train(task: Task, rank: int, world: int, warnings: list[str]) -> dict[str, Any]:
    """Train to the end; what it cost, as the first worker knows it, where it was not at its end already."""
    import ray.train.torch
    import torch

    from ray_ns.engine.workers.leave import told
    from ray_ns.engine.workers.score import Score
    from ray_ns.models.memory import keep_memory
    from ray_ns.models.zoo import weights
    from ray_ns.train.fit import LeavingError, Worker, fit
    from ray_ns.train.state import TrainState

    cluster, data = task.config.cluster, task.config.data
    keep_memory()
    torch.set_num_threads(cluster.train_threads)
    device = torch.device("cuda" if torch.cuda.is_available() and cluster.train_gpus else "cpu")
    store = task.store
    if _published(store, task, rank):
        return {}
    first = weights(task.first.read(store)) if task.first else None
    state = TrainState.fresh(task.recipe, data, task.key, device, first, task.frozen)
    found = _agreed(store, task.checkpoints, rank, warnings)
    if found is not None:
        state.load(found.step, found.tensors, found.facts["optimizer"])
    network = ray.train.torch.prepare_model(state.network, move_to_device=device)
    steps = steps_of(task, rank, world, selected(task))
    leaving = _leaving(task)
    cpus = local_cpus(task.config) // ray.train.get_context().get_local_world_size()
    worker = Worker(device, task.key, rank, cluster.loaders(cpus), cluster.train_microbatch, told.is_set)
    score = Score(task.config, task.corpora["validation"], device, rank, world) if task.recipe.eval_steps else None
    recorder = None
    if rank == 0:
        recorder = Recorder(
            store, task.prefix, task.checkpoints, task.holder, cluster, task.recipe, data, steps, found, leaving
        )

    def ask(state: "TrainState", loss: float) -> None:
        leaving(state.step)

    try:
        fit(task.recipe, data, steps, state, worker, network, recorder.after_step if recorder else ask, score)
    except LeavingError:
        if recorder is not None:
            recorder.save(state)
        if world > 1:
            torch.distributed.barrier()  # Ray ends all workers as soon as one has left
        raise
    if recorder is None:
        return {}
    if steps.unreadable:
        reasons = in_words(Counter(steps.unreadable.values()), steps.unreadable)
        warnings.append(f"{len(steps.unreadable):,} training images cannot be read and taught nothing ({reasons})")
    recorder.publish(state, task.class_names)
    return recorder.cost()


def _published(store: ObjectStore, task: Task, rank: int) -> bool:
    """Whether the network is there already: Ray ended the workers that made it before it saw them finish."""
    from ray.train.collective import broadcast_from_rank_zero

    found = rank == 0 and 0 in Output(store, task.prefix, fence(store, task.holder)).done()
    return bool(broadcast_from_rank_zero(found))


def _agreed(store: ObjectStore, place: str, rank: int, warnings: list[str]) -> checkpoint.Checkpoint | None:
    """The checkpoint that all workers go on from: the newest the first one finds.

    Were each to look for itself, the last write of an attempt that is being torn down could come between them.
    """
    from ray.train.collective import broadcast_from_rank_zero

    found = checkpoint.latest(store, place, warnings.append) if rank == 0 else None
    key = broadcast_from_rank_zero(found.key if found else None)
    return found if rank == 0 or key is None else checkpoint.at(store, key)


def _leaving(task: Task) -> Callable[[int], bool]:
    """Whether Ray knows of a machine that it will take away. All workers ask, at the same steps, as Ray wants it."""
    import ray.train

    every = max(1, task.config.cluster.checkpoint_steps // 10)

    def leaving(step: int) -> bool:
        return task.watched and step % every == 0 and ray.train.get_preemption_info() is not None

    return leaving


def steps_of(task: Task, rank: int, world: int, chosen: Selected | None) -> "Steps":
    """The batches of one worker; ``chosen``: the selection it learns from."""
    from ray_ns.images.augment import per_image
    from ray_ns.train.data import Steps

    augment = per_image(task.recipe.noise, task.config.data.size)
    pseudo = pseudo_labelled(task, chosen) if chosen is not None else None
    ratio = task.recipe.ratio if isinstance(task.recipe, Student) else 0
    return Steps(labelled(task), pseudo, task.batch, ratio, task.key, rank, world, augment)


def labelled(task: Task) -> "Images":
    """The labelled images with smoothed one-hot targets."""
    import torch

    from ray_ns.corpora.corpus import image_ids
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
    return Images(corpus, visits, _decode(task), targets, data.max_quarantined)


def _decode(task: Task) -> decode.Decode:
    data = task.config.data
    return decode.Decode(data.size, data.channels, "none" if task.recipe.noise.crop == "random_resized" else data.fit)


def selected(task: Task) -> Selected | None:
    """The task's selection; None where it has none."""
    if not task.selection:
        return None
    soft = isinstance(task.recipe, Student) and task.recipe.targets == "soft"
    return Selected.read(task.store, task.selection, soft)


def pseudo_labelled(task: Task, chosen: Selected) -> "Images":
    """The selected images of the pool with the teacher's labels, soft or hard."""
    import torch

    from ray_ns.models.loss import sharpen, smooth
    from ray_ns.train.data import Images, visits_of

    assert isinstance(task.recipe, Student)
    recipe, data = task.recipe, task.config.data

    def targets(rows: np.ndarray) -> np.ndarray:
        if recipe.targets == "hard":
            hard = torch.from_numpy(chosen.labels[rows].astype(np.int64))
            return smooth(hard, data.classes, recipe.label_smoothing).numpy()
        return sharpen(torch.from_numpy(chosen.soft(rows, data.classes)), recipe.temperature).numpy()

    corpus = task.corpora["pool"]
    visits = visits_of(corpus, chosen.ids, chosen.copies)
    return Images(corpus, visits, _decode(task), targets, data.max_quarantined)
