"""What a stage on a cluster waits for, said while nothing of it goes on; a wait without end ends the run instead.

Ray waits in silence: for a node that is still starting, for one with a label that no node has, for CPUs that another
job holds. Here a thread looks at the nodes whenever the stage's progress has stood still for a while.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ray_ns.config import Cluster
from ray_ns.engine import meanwhile, placement
from ray_ns.engine.placement import Shape
from ray_ns.engine.remote_cluster import START_SECONDS
from ray_ns.errors import ResumableError
from ray_ns.observe import Reporter, in_time

if TYPE_CHECKING:
    from ray_ns.engine.run import Run

LOOK_SECONDS = 1.0
STILL_SECONDS = 10.0  # so long a stand-still is none yet
ELASTIC_START_SECONDS = "60"  # as Ray has it
AGAIN_SECONDS = 2.0  # between two looks at the nodes


class Waiting:
    """One watch over a stage. ``lacks``: what it waits for, in words; None where nothing that it needs is missing.

    ``limit``: seconds of one wait after which ``end`` is called with the error that ends the run.
    """

    def __init__(
        self, reporter: Reporter, lacks: Callable[[], str | None], limit: float, end: Callable[[ResumableError], None]
    ) -> None:
        self._reporter, self._lacks, self._limit, self._end = reporter, lacks, limit, end
        self._seen: Any = None
        self._since: float | None = None
        self._next = 0.0
        self._told = False

    def look(self, now: float) -> None:
        """Look at the stage's progress and, where it stands still, at what is missing. ``now``: in seconds."""
        snapshot = self._reporter.snapshot()
        seen = snapshot.get("stage"), snapshot.get("done")
        if self._since is None or seen != self._seen:
            self._goes_on(now, seen)
        elif now >= self._next:
            self._next = now + AGAIN_SECONDS
            lacks = self._lacks()
            if lacks is None:
                self._goes_on(now, seen)
            else:
                self._told = True
                self._reporter.waiting(f"{lacks}, {now - self._since:.0f} s")
                if now - self._since >= self._limit:
                    self._end(_given_up(lacks, now - self._since, self._limit))

    def _goes_on(self, now: float, seen: Any) -> None:
        if self._told and self._since is not None:
            self._reporter.waiting("")
            self._reporter.note(f"what was waited for is there after {in_time(now - self._since)}")
        self._seen, self._since, self._next, self._told = seen, now, now + STILL_SECONDS, False


@contextlib.contextmanager
def told(run: "Run", *shapes: Shape) -> Iterator[None]:
    """While the block runs, say what the stage waits for: nodes for those workers, or CPUs and GPUs that others use.

    ``shapes``: the kinds of worker that it cannot go on without. On a local cluster, whose one node was looked at
    before, nothing is waited for.
    """
    if run.local:
        yield
        return
    waiting = Waiting(run.reporter, lambda: lacking(shapes), run.config.cluster.timeout_seconds, run.give_up)
    with meanwhile.every(LOOK_SECONDS, lambda: waiting.look(time.monotonic()), "waiting"):
        yield


def lacking(shapes: tuple[Shape, ...]) -> str | None:
    """What the first of these that cannot go on waits for; None where none does, as far as Ray tells."""
    nodes = placement.alive()
    for shape in shapes:
        if (words := placement.missing(shape, nodes)) is not None:
            return words
    grouped = [shape for shape in shapes if shape.together]
    groups = placement.waiting_groups() if grouped else []
    for shape in grouped:
        if any(is_of(shape, group) for group in groups):
            return placement.wanted(shape, "there but in use")
    return None


def is_of(shape: Shape, group: list[dict[str, float]]) -> bool:
    """Whether a placement group that waits is one of such workers: as many parts as workers, or more, all alike."""
    asked = {name: it for name, it in (("CPU", shape.cpus), ("GPU", shape.gpus)) if it}
    return len(group) >= shape.count and all(part == asked for part in group)


def count_anew(cluster: Cluster) -> None:
    """Have Ray Train count anew how many workers there may be where a start of [least, most] takes 60 s.

    It goes by what the cluster was up to 20 s ago: a node may be gone. A fixed number has nothing to count anew, and
    waits as long as any stage may, which ``remote_cluster.join`` has set. What the user has set stays.
    """
    fixed = str(int(cluster.timeout_seconds))
    if len(cluster.worker_counts) > 1 and os.environ.get(START_SECONDS) == fixed:
        os.environ[START_SECONDS] = ELASTIC_START_SECONDS


def _given_up(lacks: str, waited: float, limit: float) -> ResumableError:
    return ResumableError(
        f"{lacks}, after {in_time(waited)} (cluster.timeout_seconds = {limit:g}). Start such nodes, or ask for less; "
        f"what is committed stays, and the same command goes on from there."
    )
