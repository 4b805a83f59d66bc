"""What the first worker keeps of a training: its curve, progress, checkpoints and, at the end, the network."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ray_ns import measures
from ray_ns.artifacts.network import fed_facts
from ray_ns.config import Cluster, Data, Training
from ray_ns.errors import ResumableError
from ray_ns.store import checkpoint, hints
from ray_ns.store.commit import Output
from ray_ns.store.lease import BRIEF_SECONDS, Holder, LeaseLostError, fence
from ray_ns.store.objects import ObjectStore
from ray_ns.store.status import PROGRESS

if TYPE_CHECKING:
    from ray_ns.train.data import Steps
    from ray_ns.train.state import TrainState

PROGRESS_SECONDS = 1.0  # in a store over a network ten times as long: its requests take this process's time too


@dataclass(frozen=True)
class Destination:
    """Where what a training makes goes: to its stage at ``prefix``, and its ``checkpoints``, in the driver's name."""

    store: ObjectStore
    prefix: str
    checkpoints: str
    holder: Holder


class Recorder:
    """``after_step`` after every step, ``publish`` after the last. ``found``: the checkpoint the training goes on from.

    ``data``: how the run's images are read, of which the recipe says what is different for the network.
    ``leaving(step)`` says whether a machine of the training is about to be taken away, which is worth a checkpoint at
    once. ``cost`` is what the steps cost since this driver began.
    """

    def __init__(
        self,
        to: Destination,
        cluster: Cluster,
        recipe: Training,
        data: Data,
        steps: "Steps",
        found: checkpoint.Checkpoint | None,
        leaving: Callable[[int], bool],
    ) -> None:
        self._to = to
        self._recipe, self._data, self._steps, self._leaving = recipe, data, steps, leaving
        self._every = cluster.checkpoint_steps
        self._fence = fence(to.store, to.holder)
        self._writer = checkpoint.Writer(to.store, to.checkpoints, to.holder, cluster.checkpoints_kept)
        self._losses: list[float] = list(found.facts["losses"]) if found else []
        # Seconds of another driver's hours are not this one's.
        self._before = found.facts["cost"] if found and found.facts["cost"]["driver"] == to.holder.lease else {}
        self._useful = 0.0
        self._ready = time.monotonic()
        self._progress = _Progress(to)
        self._left = False

    def after_step(self, state: "TrainState", loss: float) -> None:
        """Note the step; save a checkpoint where one is due. Raises what an earlier one met in its thread."""
        self._useful += time.monotonic() - self._ready
        self._losses.append(loss)
        measures.count("ns_train_steps")
        measures.level("ns_loss", loss)
        self._writer.check()
        leaving = self._leaving(state.step) and not self._left
        self._left |= leaving
        if (leaving or state.step % self._every == 0) and not state.finished(self._recipe):
            self._writer.save(lambda: self._checkpoint(state))
        if self._progress.is_due():
            self._progress.write(self._so_far(state))
        self._ready = time.monotonic()

    def save(self, state: "TrainState") -> None:
        """Save a checkpoint now; it is written when this returns."""
        self._progress.wait()
        self._writer.save(lambda: self._checkpoint(state))
        self._writer.wait()

    def publish(self, state: "TrainState", class_names: Sequence[str] | None = None) -> None:
        """Make the finished network exist, with the weights that the recipe keeps and what its classes are called."""
        from ray_ns.models.files import to_files
        from ray_ns.models.zoo import parameters

        self._writer.wait()
        last, used = self._losses[-20:], self._recipe.used_on(self._data)
        facts = {
            "steps": state.step,
            "loss": sum(last) / len(last),
            "parameters": parameters(state.kept.network),
            **fed_facts(self._data, used),
            "losses": [round(loss, 6) for loss in self._losses[:: max(1, len(self._losses) // 50)]],
            **self._curve(state),
        }
        if self._recipe.patience is not None:
            facts["kept"] = dict(zip(("step", "top1"), state.best_score, strict=True))
        self._progress.wait()
        self._progress.write(self._so_far(state))
        self._progress.wait()
        state.take_best()
        files = to_files(state.result, used, class_names)
        Output(self._to.store, self._to.prefix, self._fence).publish(0, files, facts)

    def cost(self) -> dict[str, Any]:
        """What the steps that led here cost, without those that a crash made in vain.

        Seconds of stepping and of waiting for checkpoints; bytes of shards read by this worker, and of images used.
        """
        now = {
            "useful_seconds": self._useful,
            "waited_seconds": self._writer.waited,
            "bytes_read": self._steps.bytes_read,
            "bytes_used": self._steps.bytes_used,
        }
        return {
            "driver": self._to.holder.lease,
            **{name: self._before.get(name, 0) + value for name, value in now.items()},
        }

    def _so_far(self, state: "TrainState") -> dict[str, Any]:
        """How far the training is, for whoever watches it."""
        images = state.step * self._steps.per_step
        figures = {"step": state.step, "loss": self._losses[-1], "images": images}
        return {**figures, **state.scalars, **self._curve(state)}

    def _curve(self, state: "TrainState") -> dict[str, list[list[float]]]:
        """[step, mean loss since the score before, validation top-1] of every score, where there are any."""
        before = [0, *(step for step, _ in state.scores)]
        rows = []
        for since, (step, top1) in zip(before, state.scores, strict=False):
            rows.append([step, round(sum(self._losses[since:step]) / (step - since), 6), top1])
        return {"curve": rows} if rows else {}

    def _checkpoint(self, state: "TrainState") -> checkpoint.Checkpoint:
        facts = {"optimizer": state.facts(), "losses": list(self._losses), "cost": self.cost()}
        return checkpoint.Checkpoint(state.step, state.tensors(), facts)


class _Progress:
    """Writes how far a training is, in a thread: a step that waited for the store would hold up every worker."""

    def __init__(self, to: Destination) -> None:
        self._store = to.store.patient(BRIEF_SECONDS)
        self._fence = fence(self._store, to.holder)
        self._key = f"{to.prefix}/{PROGRESS}"
        self._every = 10 * PROGRESS_SECONDS if "://" in to.store.url else PROGRESS_SECONDS
        self._began = -math.inf
        self._thread = ThreadPoolExecutor(1, "progress")
        self._under_way: Future[None] | None = None

    def is_due(self) -> bool:
        """Whether it is time to write again. Raises what the last write met where the lease is lost."""
        if self._under_way is not None and self._under_way.done():
            self.wait()
        return self._under_way is None and time.monotonic() - self._began > self._every

    def write(self, progress: Mapping[str, Any]) -> None:
        """Begin to write; a store that fails is let be."""
        self._began = time.monotonic()
        self._under_way = self._thread.submit(self._write, progress)

    def wait(self) -> None:
        """Wait until no write is under way."""
        ended, self._under_way = self._under_way, None
        if ended is not None:
            ended.result()

    def _write(self, progress: Mapping[str, Any]) -> None:
        try:
            self._fence()
        except LeaseLostError:
            raise
        except ResumableError:  # the store failed, and may accept the next one
            return
        hints.write(self._store, self._key, progress)
