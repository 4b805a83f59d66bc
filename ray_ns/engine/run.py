"""The run's one connection to Ray, opened when the first stage needs it, and the checks before anything starts."""

import contextlib
import logging
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from ray_ns.config import Config
from ray_ns.corpora.corpus import Corpus
from ray_ns.engine import connection, local_cluster, ray_private
from ray_ns.engine.fanout import FanOut, Tasks
from ray_ns.errors import InputError, RayNsError, RepeatingError, ResumableError
from ray_ns.exits import STOPPED
from ray_ns.observe import Reporter
from ray_ns.printed import tell_failure
from ray_ns.store import commit, hints, layout
from ray_ns.store.commit import Output, Part
from ray_ns.store.lease import Lease
from ray_ns.store.objects import ObjectStore

if TYPE_CHECKING:
    from ray_ns.engine.stages.stage import Done, Stage

TIMING = "timing.json"
# Raised by code over its arguments, and so again; what a machine's or a network's trouble raises is none of them.
AGAIN = (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, ImportError, AssertionError)
A = TypeVar("A")
_T = TypeVar("_T")


@dataclass
class Run:
    """What every stage of a run works with. Use as a context: Ray and the lease are given back at its end.

    ``pools``: how many shards the pool had in each generation, the present one last. ``class_names``: what the classes
    are called, in the order of their numbers, where the labelled images say so. ``until``: the stage of round 1 that
    ends the run early. ``fan_out``: what spreads tasks over the cluster.
    """

    config: Config
    store: ObjectStore
    corpora: dict[str, Corpus]
    pools: tuple[int, ...]
    lease: Lease
    reporter: Reporter
    class_names: tuple[str, ...] | None = None
    until: str | None = None
    fan_out: Callable[["Run"], Tasks] = FanOut
    until_reached: bool = field(default=False, init=False)
    _started: bool = field(default=False, init=False)
    _handlers: dict[int, Any] = field(default_factory=dict, init=False)
    _scratch: tempfile.TemporaryDirectory[str] | None = field(default=None, init=False)

    def __enter__(self) -> "Run":
        self.lease.beat_with(self.reporter.snapshot)
        self.lease.when_lost(self._end)
        self._handlers = {number: signal.signal(number, self._stop) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._started:
            import ray

            ray.shutdown()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._give_back()

    @property
    def place(self) -> str:
        """Prefix of the stages that depend on the pool as it is now."""
        return layout.place(len(self.pools))

    def check_cluster(self) -> None:
        """Raise ``InputError`` where the cluster does not answer, or is open to whoever reaches it. Asks once."""
        self._address  # noqa: B018 - asked when it is read first

    def ray(self) -> None:
        """Connect to Ray: the cluster of ``cluster.address`` or RAY_ADDRESS, else a local one of this process."""
        if self._started:
            return
        self.check_cluster()
        if self.local:
            local_cluster.start(local_cpus(self.config), self.config.cluster.gpus, object_store_mb(self.config))
        else:
            import ray

            ray.init(
                address=self._address,
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env={"env_vars": local_cluster.OF_WORKERS},
            )
            self._warn_of_resources(ray.cluster_resources())
        signal.signal(signal.SIGTERM, self._stop)  # Ray has put its own in place, which ends with another exit code
        self._started = True

    def ray_libraries(self) -> None:
        """Connect to Ray for Ray Data and Ray Train, kept quiet: loading them takes a second that tasks alone save."""
        self.ray()
        import ray.data

        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_no_progress_timeout_s = int(self.config.cluster.timeout_seconds)
        ray_private.quiet_libraries()

    def ensure(self, prefix: str, stage: "Stage[A]") -> A:
        """What ``stage`` comes to at ``prefix``: found where it is committed from the same inputs, else made.

        The seconds of the work that led to a commit lie beside it. Sets ``until_reached`` where ``until`` names it.
        """
        done: list[Done] = []

        def work(output: Output) -> tuple[Mapping[str, Any], int | Sequence[Part]]:
            began = time.monotonic()
            made = self._guarded(lambda: stage.work(self, output), prefix)
            done.append(made)
            if made.told:
                self.reporter.end(made.told)
            self.lease.check()
            hints.write(self.store, f"{prefix}/{TIMING}", {"seconds": round(time.monotonic() - began, 3)})
            return made.summary, made.parts

        committed = commit.ensure(self.store, prefix, stage.inputs(self), work, self.lease.check)
        for made in done:
            if made.then is not None:
                made.then(committed)
        artifact = stage.artifact(self, committed)
        self.until_reached |= prefix == f"{self.place}rounds/1/{self.until}"
        return artifact

    @property
    def local(self) -> bool:
        """Whether Ray is a cluster of this process alone."""
        return self._address == "local"

    def scratch(self) -> str:
        """Where Ray Train keeps its own records, which nothing of ours reads: every node must reach it."""
        if not self.local:
            return f"{self.store.url}/.ray"
        if self._scratch is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="ray_ns-")
        return self._scratch.name

    def seconds(self, prefix: str) -> float:
        """Seconds of the attempt that finished the stage at ``prefix``; 0 where unknown."""
        seconds = hints.read(self.store, f"{prefix}/{TIMING}").get("seconds")
        return float(seconds) if hints.number(seconds) else 0.0

    def seconds_of(self, turn: str) -> float:
        """Seconds of all stages of the turn at that folder, but for those within another stage's folder."""
        from ray_ns.engine import stages

        return sum(self.seconds(f"{turn}/{stage.name}") for stage in stages.TURN if "/" not in stage.name)

    @contextlib.contextmanager
    def following(self, done: Callable[[], tuple[int, str] | None]) -> Iterator[None]:
        """While the block runs, show what ``done`` returns (how many, a note) as the stage's progress each second."""
        stop = threading.Event()

        def follow() -> None:
            while not stop.wait(1.0):
                now = done()
                if now is not None:
                    self.reporter.progress(*now)

        thread = threading.Thread(target=follow, name="progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _stop(self, number: int, frame: object) -> None:
        """End at once and say how to go on: what is committed stays, and Ray's processes end with this one."""
        self._give_back()
        tell_failure(STOPPED, ResumableError.exit_code)
        os._exit(ResumableError.exit_code)

    def _end(self, error: RayNsError) -> None:
        """End at once, whatever the main thread does: nothing more may be written here."""
        try:
            tell_failure(str(error), error.exit_code)
            if self._scratch is not None:
                self._scratch.cleanup()
        finally:
            os._exit(error.exit_code)

    def _give_back(self) -> None:
        if self._scratch is not None:
            self._scratch.cleanup()
        self.lease.release()

    def _warn_of_resources(self, resources: Mapping[str, float]) -> None:
        try:
            check_resources(self.config, resources.get("CPU", 0), resources.get("GPU", 0))
        except InputError as error:
            self.reporter.warn(f"{error} Waiting for more: an autoscaling cluster may bring them.")

    @cached_property
    def _address(self) -> str:
        """The cluster's address, once it is known that the run may join it."""
        address = connection.address_of(self.config.cluster.address)
        connection.check(address)
        if address == connection.LOCAL:
            local_cluster.check_folder()
        return address

    def _guarded(self, work: Callable[[], _T], stage: str) -> _T:
        """What ``work`` returns; errors raised inside Ray come out as ours."""
        try:
            return work()
        except RayNsError:
            raise
        except Exception as error:
            found = _cause(error)
            if found is not None:
                raise type(found)(str(found)) from error
            told = f" Ray's logs: {ray_private.session_folder()}/logs" if self._started and self.local else ""
            words = f"{stage} failed: {_last_line(error)}. What is committed stays."
            if _would_repeat(error):
                raise RepeatingError(
                    f"{words} The same command would meet this again: mend its cause.{told}"
                ) from error
            raise ResumableError(f"{words} The same command goes on from there.{told}") from error


def local_cpus(config: Config) -> int:
    """Logical CPUs of a local cluster: ``cluster.cpus``, or all this process may use; two where there is but one."""
    return config.cluster.cpus or max(2, len(os.sched_getaffinity(0)))


# Slices per CPU that the object store holds in the layout ``tasks``. Ray Data uses half of the store, gives each of the
# operators a part, and lets a task start only where two slices more have room: with less, CPUs idle.
SLICES_PER_CPU = 7


def object_store_mb(config: Config) -> int:
    """Megabytes of a local cluster's object store: ``cluster.object_store_mb``, or what the layout needs."""
    if config.cluster.object_store_mb is not None:
        return config.cluster.object_store_mb
    if config.label.layout_here == "actor":
        return 256
    side = max(config.data.size, *(recipe.finetune.size or 0 for recipe in config.recipes().values()))
    slice_bytes = config.label.slice_rows * side**2 * config.data.channels
    return 256 + -(-SLICES_PER_CPU * local_cpus(config) * slice_bytes // 2**20)


def check_resources(config: Config, cpus: float, gpus: float) -> None:
    """Raise ``InputError`` where the cluster's CPUs or GPUs cannot hold the actors, the readers and the workers.

    Ray Data hangs in silence where teacher actors take every CPU: the tasks that read the pool never start.
    """
    label, cluster = config.label, config.cluster
    needs = [
        ("label.actors", label.actors, "label.threads", label.threads, 1, "and 1 for the reader"),
        ("cluster.train_workers", cluster.worker_counts[0], "cluster.train_threads", cluster.train_threads, 0, ""),
    ]
    for many, count, each, threads, extra, why in needs:
        need = count * threads + extra
        if need > cpus:
            raise InputError(
                f"{many} x {each} = {count} x {threads} CPUs {why}".rstrip()
                + f" make {need}, the cluster has {cpus:g}. Lower {many} or {each}, or raise cluster.cpus."
            )
    for many, need_gpus in {
        "label.actors x label.gpus_per_actor": label.actors * label.gpus_per_actor,
        "cluster.train_workers x cluster.train_gpus": cluster.worker_counts[0] * cluster.train_gpus,
    }.items():
        if need_gpus > gpus:
            raise InputError(f"{many} = {need_gpus:g} GPUs, the cluster has {gpus:g}. Lower one of them.")


def _cause(error: BaseException | None) -> RayNsError | None:
    """The error of ours inside Ray's wrappings, if there is one."""
    seen: list[BaseException] = []
    queue = [error]
    while queue:
        current = queue.pop(0)
        if current is None or current in seen:
            continue
        if isinstance(current, RayNsError):
            return current
        seen.append(current)
        inner = getattr(current, "cause", None)
        queue += [inner if isinstance(inner, BaseException) else None, current.__cause__, current.__context__]
        queue += list((getattr(current, "worker_failures", None) or {}).values())
    return None


def _would_repeat(error: BaseException) -> bool:
    """Whether code has raised it over what it was given, and no crash, machine or network is behind it."""
    seen: list[BaseException] = []
    queue: list[BaseException | None] = [error]
    while queue:
        current = queue.pop(0)
        if current is None or current in seen:
            continue
        seen.append(current)
        if isinstance(current, AGAIN) and not type(current).__module__.startswith("ray"):
            return True
        inner = getattr(current, "cause", None)
        queue += [inner if isinstance(inner, BaseException) else None, current.__cause__]
        queue += list((getattr(current, "worker_failures", None) or {}).values())
    return False


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else 'no message'}"
