"""What a training worker runs: go on from the newest checkpoint, train, keep checkpoints, publish the network.

``ray.train.report`` is no commit (a checkpoint it took may be lost to a kill a second later), so the state goes to the
run's own store, pointer last, and whoever starts a worker again goes on from the newest pointer that verifies.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ray_ns.artifacts import selection
from ray_ns.config import Config, Student, Training, TwoViewStudent
from ray_ns.corpora.corpus import Corpus
from ray_ns.corpora.unreadable import in_words
from ray_ns.engine import metrics
from ray_ns.engine.resources import local_cpus
from ray_ns.engine.workers.recorder import Destination, Recorder
from ray_ns.errors import RayNsError
from ray_ns.store import checkpoint
from ray_ns.store.commit import Output, Part, StoredObject
from ray_ns.store.lease import fence

if TYPE_CHECKING:
    import torch

    from ray_ns.train.selected import Selected
    from ray_ns.train.state import TrainState


@dataclass(frozen=True)
class Task:
    """What one training's workers are told.

    ``selection`` is empty where there are labelled images only; ``first`` are the first weights, where they are some
    network's, and ``frozen`` is how many of its first layers keep them. ``watched``: Ray watches for machines that are
    about to be taken away. ``weight``: see ``objective_of``.
    """

    to: Destination
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
    weight: float = 1.0


@dataclass(frozen=True)
class Place:
    """Which of how many workers this one is, and how many are on its node. ``alone``: the one of this process, no Ray.

    ``told``: whether it is told to leave.
    """

    rank: int
    world: int
    on_node: int
    told: Callable[[], bool]
    alone: bool = False


@dataclass(frozen=True)
class Ended:
    """How the first worker ended. Errors that a retry would only meet again are carried, not raised."""

    error: RayNsError | None
    warnings: list[str]
    cost: dict[str, Any]


def work_on(settings: dict[str, Any]) -> Ended:
    """What every training worker runs."""
    import ray.train

    from ray_ns.engine.workers.leave import left, told
    from ray_ns.train.fit import LeavingError
    from ray_ns.train.step import NotFiniteError

    metrics.in_worker(metrics.of_prefix(settings["task"].to.prefix))
    context = ray.train.get_context()
    world = context.get_world_size()
    place = Place(context.get_world_rank(), world, context.get_local_world_size(), told.is_set)
    warnings: list[str] = []
    try:
        return Ended(None, warnings, _train(settings["task"], place, warnings))
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


def work_here(task: Task) -> Ended:
    """The same by one worker in this process, without Ray: the same bytes."""
    import torch

    threads = torch.get_num_threads()
    warnings: list[str] = []
    try:
        return Ended(None, warnings, _train(task, Place(0, 1, 1, lambda: False, alone=True), warnings))
    except RayNsError as error:
        return Ended(error, warnings, {})
    finally:
        torch.set_num_threads(threads)


def _train(task: Task, place: Place, warnings: list[str]) -> dict[str, Any]:
    """Train to the end; what it cost, as the first worker knows it, where it was not at its end already."""
    import torch

    from ray_ns.engine.workers.score import Score
    from ray_ns.methods.objectives import objective_of
    from ray_ns.models.files import weights
    from ray_ns.models.memory import forget_peak, keep_memory
    from ray_ns.train.fit import LeavingError, Worker, fit
    from ray_ns.train.sources import Sources
    from ray_ns.train.state import TrainState

    cluster, data = task.config.cluster, task.recipe.trained_on(task.config.data)
    used, rank, world = task.recipe.used_on(task.config.data), place.rank, place.world
    keep_memory()
    memory_known = forget_peak() or not place.alone  # here other trainings may have gone before
    torch.set_num_threads(cluster.train_threads)
    device = torch.device("cuda" if torch.cuda.is_available() and cluster.train_gpus else "cpu")
    if cluster.train_gpus and device.type == "cpu":
        warnings.append("cluster.train_gpus = 1, and torch sees no GPU on the worker's node: it trained on the CPU")
    if _published(task.to, place):
        return {}
    first = weights(task.first.read(task.to.store)) if task.first else None
    objective = objective_of(task.recipe, task.batch, bool(task.selection), task.weight)
    state = TrainState.fresh(objective, data, task.key, device, first, task.frozen)
    found = _agreed(task.to, place, warnings)
    if found is not None:
        state.load(found.step, found.tensors, found.facts["optimizer"])
    if not place.alone:
        _join(state, cluster.bn_group, device)
    sources = Sources(task.recipe, data, task.corpora, _selected(task))
    steps = sources.steps(objective.sources(), task.key, rank, world)
    leaving = _leaving(task)
    loaders = cluster.loaders(local_cpus(task.config) // place.on_node)
    worker = Worker(device, task.key, rank, loaders, cluster.train_microbatch, place.told)
    scored = task.config.reading(used)
    score = Score(scored, task.corpora["validation"], device, rank, world) if task.recipe.eval_steps else None
    recorder = None
    if rank == 0:
        recorder = Recorder(task.to, cluster, task.recipe, task.config.data, steps, found, leaving)

    def ask(state: "TrainState", loss: float) -> None:
        leaving(state.step)

    try:
        fit(objective, data, steps, state, worker, recorder.after_step if recorder else ask, score)
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
    return recorder.cost() | {"memory_mb": _memory(device) if memory_known else 0}


def _memory(device: "torch.device") -> int:
    """The most memory that the training took, MB: of the GPU where it ran on one, else of this process."""
    import torch

    from ray_ns.models.memory import peak_mb

    return torch.cuda.max_memory_allocated(device) // 2**20 if device.type == "cuda" else peak_mb()


def _join(state: "TrainState", bn_group: int, device: "torch.device") -> None:
    """Let the networks learn together with those of the other workers; ``bn_group``: as in the config."""
    import ray.train.torch
    import torch

    from ray_ns.models.batch_norm import share_statistics

    group = torch.distributed.new_subgroups(bn_group)[0] if bn_group > 1 else None
    for net in state.nets.values():
        if group is not None:
            share_statistics(net.network, group)
        net.wrapped = ray.train.torch.prepare_model(net.network, move_to_device=device)


def _published(to: Destination, place: Place) -> bool:
    """Whether the network is there already: Ray ended the workers that made it before it saw them finish."""
    found = place.rank == 0 and 0 in Output(to.store, to.prefix, fence(to.store, to.holder)).done()
    return bool(_of_the_first(found, place))


def _of_the_first(value: Any, place: Place) -> Any:
    """What the first worker has as ``value``, on all of them."""
    if place.alone:
        return value
    from ray.train.collective import broadcast_from_rank_zero

    return broadcast_from_rank_zero(value)


def _agreed(to: Destination, place: Place, warnings: list[str]) -> checkpoint.Checkpoint | None:
    """The checkpoint that all workers go on from: the newest the first one finds.

    Were each to look for itself, the last write of an attempt that is being torn down could come between them.
    """
    found = checkpoint.latest(to.store, to.checkpoints, warnings.append) if place.rank == 0 else None
    key = _of_the_first(found.key if found else None, place)
    return found if place.rank == 0 or key is None else checkpoint.at(to.store, key)


def _selected(task: Task) -> "Selected | None":
    """The task's selection in memory; None where it has none."""
    from ray_ns.train.selected import Selected

    if not task.selection:
        return None
    recipe = task.recipe
    soft = isinstance(recipe, Student) and recipe.targets == "soft" and not isinstance(recipe, TwoViewStudent)
    return Selected(selection.tables(task.to.store, task.selection, soft))


def _leaving(task: Task) -> Callable[[int], bool]:
    """Whether Ray knows of a machine that it will take away. All workers ask, at the same steps, as Ray wants it."""
    every = max(1, task.config.cluster.checkpoint_steps // 10)

    def leaving(step: int) -> bool:
        if not task.watched or step % every:
            return False
        import ray.train

        return ray.train.get_preemption_info() is not None

    return leaving
