"""What ``train`` and ``finetune`` share: a network trained on Ray Train.

Ray starts, watches and restarts the workers; the checkpoints are ours (``engine.workers.training``).
"""

import os
import time
import uuid
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ray_ns.artifacts.network import Network
from ray_ns.artifacts.selection import Selection
from ray_ns.config import Config, MetaStudent, ReducedStudent, Training
from ray_ns.engine import metrics, placement, ray_private, waiting
from ray_ns.engine.run import Run
from ray_ns.engine.stages.stage import Done, Stage
from ray_ns.engine.workers.recorder import Destination
from ray_ns.engine.workers.training import Ended, Task, work_here, work_on
from ray_ns.images import decode
from ray_ns.seals import digest
from ray_ns.store import checkpoint, hints
from ray_ns.store.commit import Commit, Output
from ray_ns.store.objects import ObjectStore
from ray_ns.store.status import PROGRESS, scored

if TYPE_CHECKING:
    from ray.train import FailureConfig, ScalingConfig

COST = "cost.json"
# Of the arithmetic of Meta Pseudo Labels. A checkpoint of an earlier one is not gone on from: the training begins anew.
LESSON = 2


@dataclass(frozen=True)
class Plan:
    """One training. ``batch``: labelled images per step, over all workers; ``key``: of all its random draws.

    The ``recipe`` says what it changes in the config's ``data`` to train, and where the network is used.
    ``selection``: None trains on labelled images alone. ``begin``: the network whose weights it begins with;
    ``frozen``: how many first layers keep them. ``weight``: of the loss of images of one kind alone.
    """

    config: Config
    recipe: Training
    batch: int
    key: int
    selection: Selection | None = None
    begin: Network | None = None
    frozen: int = 0
    weight: float = 1.0


class NetworkStage(Stage[Network]):
    """A stage whose output is a trained network: one part with ``model.safetensors`` and ``config.json``."""

    @abstractmethod
    def plan(self, run: Run) -> Plan:
        """What is trained."""

    def inputs(self, run: Run) -> dict[str, Any]:
        plan = self.plan(run)
        config, recipe = plan.config, plan.recipe
        inputs = {
            "recipe": run.settings.of(recipe),
            "batch": plan.batch,
            "seed": str(plan.key),
            "labelled": digest([vars(shard) for shard in run.corpora["labelled"].shards]),
            "selection": plan.selection.digest if plan.selection else None,
            "data": run.settings.of(config.data),
            "begin": plan.begin.digest if plan.begin else None,
            "frozen": plan.frozen,
            "workers": [config.cluster.train_workers, config.cluster.train_threads],
            "decode": decode.VERSION,
            "class_names": digest(run.class_names),
        }
        if config.cluster.bn_group > 1:
            inputs["bn_group"] = config.cluster.bn_group
        if plan.weight != 1:
            inputs["weight"] = plan.weight
        if recipe.eval_steps is not None:
            inputs["scored"] = {
                "validation": digest([vars(shard) for shard in run.corpora["validation"].shards]),
                "batch": [config.label.slice_rows, config.label.precision],
            }
        return inputs

    def work(self, run: Run, output: Output) -> Done:
        plan = self.plan(run)
        run.reporter.begin(output.prefix, plan.recipe.steps, "steps")
        if 0 not in output.done():
            _fit(run, self._task(run, output, plan))
        run.lease.check()
        checkpoint.clear(run.store, output.prefix)
        facts = dict(output.done()[0].facts)
        told = f"{facts['steps']} steps, loss {facts['loss']:.4f}, {facts['parameters']:,} parameters"
        return Done(facts, 1, told + _kept(facts, plan.recipe))

    def artifact(self, run: Run, commit: Commit) -> Network:
        return Network(commit)

    def _task(self, run: Run, output: Output, plan: Plan) -> Task:
        used = ["labelled", "pool", *(["validation"] if plan.recipe.eval_steps is not None else [])]
        place = checkpoint_place(plan.recipe, output.prefix, self.inputs(run))
        return Task(
            Destination(run.store, output.prefix, place, run.lease.held()),
            plan.config,
            plan.recipe,
            plan.batch,
            {name: run.corpora[name] for name in used},
            tuple(plan.selection.parts) if plan.selection else (),
            plan.key,
            os.environ.get("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "1") != "0",
            plan.begin.weights if plan.begin else None,
            plan.frozen,
            run.class_names,
            plan.weight,
        )


def checkpoint_place(recipe: Training, prefix: str, inputs: dict[str, Any]) -> str:
    """Where the checkpoints of a training lie: each by what it depends on."""
    lesson = {"lesson": LESSON} if isinstance(recipe, MetaStudent | ReducedStudent) else {}
    return checkpoint.place(prefix, digest(inputs | lesson))


def _kept(facts: dict[str, Any], recipe: Training) -> str:
    """How the training scored on validation images, why it ended, and which weights are committed."""
    if "curve" not in facts:
        return ""
    if "kept" not in facts:
        return f", {scored(facts['curve'])}; kept: the last step's weights"
    early = f", no better one in {recipe.patience} scores" if facts["steps"] < recipe.steps else ""
    return f"{early}; kept: the weights of step {facts['kept']['step']}, top-1 {facts['kept']['top1']:.1%}"


def _fit(run: Run, task: Task) -> None:
    """Train to the end, showing progress. What the workers raise on purpose is raised here."""
    began = time.monotonic()
    with run.following(lambda: _done(run.store, task.to.prefix)):
        ended = work_here(replace(task, watched=False)) if run.here else _on_ray_train(run, task)
    for warning in ended.warnings:
        run.reporter.warn(warning)
    if ended.error is not None:
        raise ended.error
    if ended.cost:
        run.lease.check()
        hints.write(run.store, f"{task.to.prefix}/{COST}", _cost(ended.cost, time.monotonic() - began))


def _on_ray_train(run: Run, task: Task) -> Ended:
    """How the first worker of Ray Train ended."""
    run.ray_libraries()
    import ray.train

    from ray_ns.engine.workers.leave import ListeningTorchConfig
    from ray_ns.engine.workers.restarts import Restarts

    trainer = ray_private.trainer()(
        work_on,
        train_loop_config={"task": task},
        torch_config=ListeningTorchConfig(
            meet_in=run.scratch() if run.local else None, gpus=bool(run.config.cluster.train_gpus)
        ),
        scaling_config=_scaling(run),
        run_config=ray.train.RunConfig(
            # A name of its own per attempt: Ray would otherwise resume from records of its own.
            name=run.named(uuid.uuid4().hex[:8]),
            storage_path=run.scratch(),
            callbacks=[Restarts(metrics.of_prefix(task.to.prefix))],
            failure_config=_failures(run),
        ),
    )
    if not run.local:
        waiting.count_anew(run.config.cluster)
    with waiting.told(run, placement.training(run.config)):
        ended: Ended = trainer.fit().return_value
    return ended


def _scaling(run: Run) -> "ScalingConfig":
    """How many workers, what each takes of its node, and which nodes."""
    import ray.train

    cluster = run.config.cluster
    counts = cluster.worker_counts
    resources: dict[str, float] = {"CPU": cluster.train_threads}
    if cluster.train_gpus:
        resources["GPU"] = cluster.train_gpus
    return ray.train.ScalingConfig(
        num_workers=counts[0] if len(counts) == 1 else (counts[0], counts[-1]),
        use_gpu=bool(cluster.train_gpus),
        resources_per_worker=resources,
        **placement.options(cluster.train_on, run.local),
    )


def _failures(run: Run) -> "FailureConfig":
    """What a training survives: so many workers lost without notice, and so many starts that failed.

    A machine taken away with notice is no failure, however often: the workers keep a checkpoint and go on elsewhere.
    Neither is a start for which there were no nodes: ``waiting`` bounds that.
    """
    import ray.train

    most = run.config.cluster.max_failures
    return ray.train.FailureConfig(
        max_failures=most,
        max_preemption_failures=-1,
        controller_failure_limit=-1 if _elastic(run) and not run.local else most,
    )


def _elastic(run: Run) -> bool:
    return len(run.config.cluster.worker_counts) > 1


def _cost(cost: dict[str, Any], wall: float) -> dict[str, float]:
    """What the training cost, beside its commit because no two are alike; memory is the first worker's."""
    return {
        "seconds": round(wall, 3),
        "goodput": round(cost["useful_seconds"] / wall, 4),
        "checkpoint_stall": round(cost["waited_seconds"] / wall, 4),
        "read_amplification": round(cost["bytes_read"] / max(cost["bytes_used"], 1), 4),
        "memory_mb": cost["memory_mb"],
    }


def _done(store: ObjectStore, prefix: str) -> tuple[int, str, dict[str, float]] | None:
    """Steps done, the last score, the loss and the images used so far, as the first worker noted them."""
    found = hints.read(store, f"{prefix}/{PROGRESS}")
    if not hints.number(found.get("step")):
        return None
    curve = hints.curve(found)
    figures = {name: found[name] for name in ("loss", "images", "feedback") if hints.number(found.get(name))}
    return int(found["step"]), scored(curve) if curve else "", figures
