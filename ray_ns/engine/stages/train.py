"""Train one network on Ray Train. Ray starts, watches and restarts the workers; the checkpoints are ours."""

import os
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ray_ns.config import Config, Student, Training, results_of
from ray_ns.engine.run import Run
from ray_ns.engine.workers.recorder import Destination
from ray_ns.engine.workers.training import Task, work_on
from ray_ns.images import decode
from ray_ns.keyed import seed
from ray_ns.models.files import WEIGHTS
from ray_ns.seals import digest
from ray_ns.store import checkpoint, hints
from ray_ns.store.commit import Commit, Output
from ray_ns.store.objects import ObjectStore
from ray_ns.store.status import PROGRESS, scored

COST = "cost.json"


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
            to = Destination(run.store, prefix, place, holder)
            task = Task(to, config, recipe, batch, corpora, parts, key, watched, first, frozen, run.class_names)
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
            name=f"{task.to.prefix.replace('/', '-')}-{uuid.uuid4().hex[:8]}",
            storage_path=run.scratch(),
            failure_config=ray.train.FailureConfig(
                max_failures=cluster.max_failures, controller_failure_limit=cluster.max_failures
            ),
        ),
    )
    began = time.monotonic()
    # In a thread of its own, because fit() would put its own handler of Ctrl-C in place of the run's.
    with run.following(lambda: _done(run.store, task.to.prefix)), ThreadPoolExecutor(1) as thread:
        ended = thread.submit(trainer.fit).result().return_value
    for warning in ended.warnings:
        run.reporter.warn(warning)
    if ended.error is not None:
        raise ended.error
    if ended.cost:
        run.lease.check()
        hints.write(run.store, f"{task.to.prefix}/{COST}", _cost(ended.cost, time.monotonic() - began))


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
