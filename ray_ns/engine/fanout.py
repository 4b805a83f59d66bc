"""One task for each of many items, spread over the cluster: what selection and ingest do with Ray.

A task reads what it needs and writes what comes of it itself, so its result is a few figures: no image crosses the
object store, and the driver holds little.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ray_ns.engine import placement, waiting
from ray_ns.engine.resources import local_cpus
from ray_ns.errors import RayNsError
from ray_ns.store.processes import runs_here, this_process

if TYPE_CHECKING:
    from ray_ns.engine.run import Run

# Of a task whose worker dies. An image that kills its decoder costs one attempt, and the next one decodes it in a
# process of its own; a task's run of images may hold several such, and machines may be lost besides.
ATTEMPTS = 16
PER_CPU = 2  # tasks in flight: one runs, one waits, so that no CPU is idle while the driver handles a result
LEAVE_SECONDS = 1.0  # at most: it takes workers 0.2


class Tasks(Protocol):
    """What ``FanOut`` offers; a test gives a ``Run`` another, which runs tasks in its own process."""

    @property
    def cpus(self) -> int:
        """How many CPUs there are to run tasks on, at least 1."""

    def start(self, ready: Callable[[], Any], tasks: int) -> None:
        """Have workers for so many tasks started, which takes seconds, and return without waiting for them.

        Each calls ``ready``, whose module it thus has loaded before its first task.
        """

    def map(self, task: Callable[..., Any], items: Sequence[Any], *shared: Any) -> Iterator[tuple[int, Any]]:
        """(place in ``items``, ``task(item, *shared)``) of every item, in whatever order they end.

        What a task raises is raised here, an error of ours as itself. ``shared`` goes to each machine once.
        """

    def combine(
        self, task: Callable[..., Any], items: Sequence[Any], combined: Callable[..., tuple[Any, Any]]
    ) -> tuple[Any, Any]:
        """``combined(*results)`` of ``task(item)`` of all items, in their order: two values, made by one more task.

        The first may be large and stays with the workers: it is only good as one of ``map``'s ``shared``.
        """

    def dismiss(self) -> None:
        """End the workers, so that their memory is free before the driver needs as much."""


class FanOut:
    """``Tasks`` on the run's Ray cluster, to which it connects when it is first used."""

    def __init__(self, run: "Run") -> None:
        self._run = run
        self._workers = 0

    @property
    def cpus(self) -> int:
        self._run.ray()
        on = placement.reading(self._run.config).selector
        nodes = [it for it in placement.alive() if self._run.local or placement.matches(on, it.labels)]
        return max(int(sum(it.cpus for it in nodes)), 1)

    def start(self, ready: Callable[[], Any], tasks: int) -> None:
        self._workers = max(self._workers, min(self.cpus, tasks))
        self._by_each_worker(ready)

    def map(self, task: Callable[..., Any], items: Sequence[Any], *shared: Any) -> Iterator[tuple[int, Any]]:
        cpus = self.cpus
        import ray

        self._workers = max(self._workers, min(cpus, len(items)))
        remote = self._remote(task)
        references = [it if isinstance(it, ray.ObjectRef) else ray.put(it) for it in shared]
        left = iter(enumerate(items))
        running: dict[ray.ObjectRef, int] = {}
        with waiting.told(self._run, placement.reading(self._run.config)):
            while True:
                for number, item in itertools.islice(left, PER_CPU * cpus - len(running)):
                    running[remote.remote(item, *references)] = number
                if not running:
                    return
                (done,), _ = ray.wait(list(running), num_returns=1)
                yield running.pop(done), _result(done)

    def combine(
        self, task: Callable[..., Any], items: Sequence[Any], combined: Callable[..., tuple[Any, Any]]
    ) -> tuple[Any, Any]:
        self._run.ray()
        remote = self._remote(task)
        large, small = self._remote(combined, num_returns=2).remote(*[remote.remote(item) for item in items])
        with waiting.told(self._run, placement.reading(self._run.config)):
            return large, _result(small)

    def dismiss(self) -> None:
        import ray

        until = time.monotonic() + LEAVE_SECONDS
        asked = self._by_each_worker(this_process, max_calls=1)
        leaving = ray.get(ray.wait(asked, num_returns=len(asked), timeout=LEAVE_SECONDS)[0])
        while any(map(runs_here, leaving)) and time.monotonic() < until:
            time.sleep(0.01)

    def _by_each_worker(self, function: Callable[[], Any], **options: Any) -> list[Any]:
        task = self._remote(function, **options)
        return [task.remote() for _ in range(self._workers)]

    def _remote(self, function: Callable[..., Any], **options: Any) -> Any:
        """The function as a task of Ray, on nodes that decode, under a name that the dashboard shows."""
        import ray

        run = self._run
        where = placement.options(run.config.cluster.decode_on, run.local)
        return ray.remote(max_retries=ATTEMPTS, name=run.named(function.__name__), **where, **options)(function)


class Here:
    """``Tasks`` in this process, one after the other, without Ray."""

    def __init__(self, run: "Run") -> None:
        self.cpus = local_cpus(run.config)  # by which work is cut, as on a local cluster

    def start(self, ready: Callable[[], Any], tasks: int) -> None:
        ready()

    def map(self, task: Callable[..., Any], items: Sequence[Any], *shared: Any) -> Iterator[tuple[int, Any]]:
        for number, item in enumerate(items):
            yield number, task(item, *shared)

    def combine(
        self, task: Callable[..., Any], items: Sequence[Any], combined: Callable[..., tuple[Any, Any]]
    ) -> tuple[Any, Any]:
        return combined(*map(task, items))

    def dismiss(self) -> None:
        pass


def _result(done: Any) -> Any:
    """What a task returned. Ray wraps what it raised and adds a traceback to the text: an error of ours comes bare."""
    import ray

    try:
        return ray.get(done)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, RayNsError):
            raise type(error.cause)(str(error.cause)) from error
        raise
