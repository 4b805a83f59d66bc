"""A run under way: its settings, store, corpora, lease and connection to Ray, and how a stage is carried out."""

import _thread
import contextlib
import hashlib
import os
import re
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from ray_ns import measures
from ray_ns.artifacts.network import GIVEN, Network
from ray_ns.config import Config, Settings
from ray_ns.corpora.corpus import Corpus
from ray_ns.engine import (
    cards,
    connection,
    failures,
    local_cluster,
    meanwhile,
    metrics,
    nodes,
    placement,
    ray_private,
    remote_cluster,
)
from ray_ns.engine.fanout import FanOut, Tasks
from ray_ns.engine.resources import check_resources, local_cpus, object_store_mb
from ray_ns.engine.taking import Taking
from ray_ns.errors import InputError, RayNsError, ResumableError
from ray_ns.exits import STOPPED, is_program, known
from ray_ns.labels.files import About
from ray_ns.observe import Reporter
from ray_ns.printed import tell_failure
from ray_ns.seals import digest
from ray_ns.store import commit, hints, layout
from ray_ns.store.commit import Output, Part
from ray_ns.store.events import Events
from ray_ns.store.lease import BRIEF_SECONDS, Lease
from ray_ns.store.objects import ObjectStore

if TYPE_CHECKING:
    from ray_ns.engine.predict import Execute
    from ray_ns.engine.stages.stage import Done, Stage

TIMING = "timing.json"
LEAVE_SECONDS = 4 * BRIEF_SECONDS  # more than the events, the heartbeat and the lease take together
A = TypeVar("A")


@dataclass
class Run:
    """What every stage of a run works with. Use as a context: Ray and the lease are given back at its end.

    ``pools``: how many shards the pool had in each generation, the present one last. ``class_names``: what the classes
    are called, in the order of their numbers, where the labelled images say so. ``until``: the stage of round 1 that
    ends the run early. ``settings``: which of its settings the run names in what it writes. ``fan_out``: what spreads
    tasks over the cluster. ``format``: the one the run began with. ``continued``: to how many rounds it
    goes on, where those are more than it began with. ``execute``: what labels images; None: Ray Data. ``here``: its
    trainings take place in this process, without Ray. ``called``: what its user calls a network that was copied into
    it, by the place of the copy.
    ``under_way``: the stage that is being made.
    """

    config: Config
    store: ObjectStore
    corpora: dict[str, Corpus]
    pools: tuple[int, ...]
    lease: Lease
    reporter: Reporter
    class_names: tuple[str, ...] | None = None
    until: str | None = None
    settings: Settings = field(default_factory=Settings)
    fan_out: Callable[["Run"], Tasks] = FanOut
    format: int = layout.FORMAT
    continued: int | None = None
    execute: "Execute | None" = None
    here: bool = False
    called: dict[str, str] = field(default_factory=dict)
    until_reached: bool = field(default=False, init=False)
    under_way: str = field(default="", init=False)
    _started: bool = field(default=False, init=False)
    _metrics: metrics.OfDriver | None = field(default=None, init=False)
    _events: Events | None = field(default=None, init=False)
    _handlers: dict[int, Any] = field(default_factory=dict, init=False)
    _scratch: tempfile.TemporaryDirectory[str] | None = field(default=None, init=False)

    def __enter__(self) -> "Run":
        self.lease.beat_with(self.reporter.snapshot)
        self.lease.when_lost(self._end)
        self._events = Events(self.store, self.id, lambda: self.lease.holder)
        self.reporter.sinks.append(self._events)
        if is_program():
            self._handlers = {number: signal.signal(number, self._stop) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._metrics is not None:
            self._metrics.end(well=kind is None)
        if self._started:
            import ray

            ray.shutdown()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if isinstance(error, KeyboardInterrupt):
            self.reporter.failed(STOPPED, ResumableError.exit_code)
        elif isinstance(error, Exception):
            ours, _ = known(error)
            self.reporter.failed(str(ours), ours.exit_code)
        self._give_back()

    @property
    def place(self) -> str:
        """Prefix of the stages that depend on the pool as it is now."""
        return layout.place(len(self.pools))

    @property
    def ending(self) -> str:
        """Prefix of the control and, after ``place``, of the report."""
        return layout.ending(self.continued)

    @cached_property
    def id(self) -> str:
        """What the run is called on a cluster that many share: the last part of its place, and a digest of all of it.

        At most 40 characters, letters, digits and ``_.-`` alone.
        """
        name = re.sub(r"[^A-Za-z0-9_.-]+", "-", self.store.url.rstrip("/").rpartition("/")[2])[:33]
        return f"{name}-{hashlib.sha256(self.store.url.encode()).hexdigest()[:6]}"

    def named(self, what: str = "") -> str:
        """What the dashboard calls a piece of work of the stage under way: the run, the stage, and ``what``."""
        return "-".join(filter(None, (self.id, self.under_way.replace("/", "-"), what)))

    def about(self, corpus: str | None = None) -> About | None:
        """What the run's tables say of themselves, with whose images their rows are; None in formats 1 and 2."""
        if self.format < layout.READABLE:
            return None
        if corpus is None:
            return About(self.class_names)
        return About(self.class_names, (corpus, digest([vars(shard) for shard in self.corpora[corpus].shards])))

    def check_cluster(self) -> None:
        """Raise ``InputError`` where the cluster does not answer, or is open to whoever reaches it. Asks once."""
        self._cluster  # noqa: B018 - asked when it is read first

    def join(self) -> None:
        """Check the cluster. Connect to one of others at once: what cannot work there is refused before any work."""
        self.check_cluster()
        if not self.local:
            self.ray()

    def ray(self) -> None:
        """Connect to Ray: the cluster of ``cluster.address`` or RAY_ADDRESS, else a local one of this process.

        Raises ``InputError`` where a node of others cannot do the run's work, or none can hold one of its workers.
        """
        if self._started:
            return
        self.check_cluster()
        before = signal.getsignal(signal.SIGTERM)
        if self.local:
            given = commit.find_commit(self.store, GIVEN)
            side = Network(given).fed(self.config.data).size if given else 0
            local_cluster.start(local_cpus(self.config), self.config.cluster.gpus, object_store_mb(self.config, side))
            if unused := placement.unused(self.config):
                self.reporter.note(unused)
        else:
            patience = self.config.cluster.timeout_seconds
            remote_cluster.join(self._cluster.address, self._cluster.loopback, self.id, patience, self._stop)
        if threading.current_thread() is threading.main_thread():  # Ray has put its own there, with another exit code
            signal.signal(signal.SIGTERM, self._stop if is_program() else before)
        self._started = True
        if not self.local:
            nodes.check(self.store, self.corpora.values(), self.reporter)
            nodes.check_shapes(self.config, self.reporter, remote_cluster.grows())
            self._warn_of_resources()
            self._metrics = metrics.OfDriver(self.id, self.reporter.snapshot)

    def ray_libraries(self) -> None:
        """Connect to Ray for Ray Data and Ray Train, kept quiet: loading them takes a second that tasks alone save."""
        self.ray()
        import ray.data

        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.raise_original_map_exception = True  # the one it would wrap it in loses it on its way to this process
        context.execution_no_progress_timeout_s = int(self.config.cluster.timeout_seconds)
        ray_private.quiet_libraries()

    def ensure(self, prefix: str, stage: "Stage[A]") -> A:
        """What ``stage`` comes to at ``prefix``: found where it is committed from the same inputs, else made.

        A forked run takes it from the other run where that has it from the same inputs: the same bytes, and no work.
        The seconds of the work that led to a commit lie beside it. Sets ``until_reached`` where ``until`` names it.
        """
        done: list[Done] = []
        inputs = stage.inputs(self)

        def work(output: Output) -> tuple[Mapping[str, Any], int | Sequence[Part]]:
            taken = self.taking.find(prefix, inputs)
            if taken is not None:
                return taken.summary, taken.parts
            began = time.monotonic()
            outer, self.under_way = self.under_way, prefix
            try:
                with failures.as_ours(prefix, self._logs):
                    made = stage.work(self, output)
            finally:
                self.under_way = outer
            done.append(made)
            if made.told:
                self.reporter.end(made.told)
            self.lease.check()
            hints.write(self.store, f"{prefix}/{TIMING}", {"seconds": round(time.monotonic() - began, 3)})
            return made.summary, made.parts

        with measures.during(stage.name):
            committed = commit.ensure(self.store, prefix, inputs, work, self.lease.check)
        self.taking.along(prefix, committed, stage.within, self.lease.check)
        for made in done:
            if made.then is not None:
                made.then(committed)
            cards.keep(self)
        artifact = stage.artifact(self, committed)
        self.until_reached |= prefix == f"{self.place}rounds/1/{self.until}"
        return artifact

    @cached_property
    def taking(self) -> Taking:
        """What it takes from the run that it was forked from."""
        return Taking(self.store, self.reporter)

    @property
    def local(self) -> bool:
        """Whether Ray is a cluster of this process alone."""
        return self._cluster.local

    def scratch(self) -> str:
        """Where Ray Train keeps its own records, which nothing of ours reads: every node must reach it."""
        if not self.local:
            return f"{self.store.url}/.ray"
        if self._scratch is None:
            # When a run is stopped, Ray's processes may still write there: the lease must be given back all the same.
            self._scratch = tempfile.TemporaryDirectory(prefix="ray_ns-", ignore_cleanup_errors=True)
        return self._scratch.name

    def seconds(self, prefix: str) -> float:
        """Seconds of the attempt that finished the stage at ``prefix``; 0 where unknown."""
        seconds = hints.read(self.store, f"{prefix}/{TIMING}").get("seconds")
        return float(seconds) if hints.number(seconds) else 0.0

    def seconds_of(self, turn: str) -> float:
        """Seconds of all stages of the turn at that folder."""
        from ray_ns.engine import stages

        return sum(self.seconds(f"{turn}/{stage.name}") for stage in stages.of_turn())

    @contextlib.contextmanager
    def following(self, done: Callable[[], tuple[int, str, Mapping[str, float]] | None]) -> Iterator[None]:
        """While the block runs, show each second what ``done`` returns: how many are done, a note, figures."""

        def look() -> None:
            now = done()
            if now is not None:
                made, note, figures = now
                self.reporter.progress(made, note, **figures)

        with meanwhile.every(1.0, look, "progress"):
            yield
        look()  # how it ended

    def give_up(self, error: RayNsError) -> None:
        """End at once with ``error``, whatever the main thread waits for; what is committed stays."""
        self.reporter.failed(str(error), error.exit_code)
        if is_program():
            self._give_back()
        self._end(error)

    def _stop(self, number: int, frame: object) -> None:
        """End at once and say how to go on: what is committed stays, and Ray's processes end with this one."""

        def leave() -> None:
            self.reporter.failed(STOPPED, ResumableError.exit_code)
            self._give_back()

        # In a thread that is not waited for for ever: the code that the signal interrupts may hold what it needs.
        leaving = threading.Thread(target=leave, daemon=True)
        leaving.start()
        leaving.join(LEAVE_SECONDS)
        tell_failure(STOPPED, ResumableError.exit_code)
        os._exit(ResumableError.exit_code)

    def _end(self, error: RayNsError) -> None:
        """End at once, whatever the main thread does: nothing more may be written here."""
        if not is_program():  # whoever called goes on living; what the run would still write is refused by its fence
            tell_failure(str(error), error.exit_code)
            _thread.interrupt_main()
            return
        try:
            tell_failure(str(error), error.exit_code)
            if self._scratch is not None:
                self._scratch.cleanup()
        finally:
            os._exit(error.exit_code)

    def _give_back(self) -> None:
        if self._scratch is not None:
            self._scratch.cleanup()
        if self._events is not None:
            self._events.close()
            self.reporter.sinks.remove(self._events)
            self._events = None
        self.lease.release()

    def _warn_of_resources(self) -> None:
        import ray

        resources = ray.cluster_resources()
        try:
            check_resources(self.config, resources.get("CPU", 0), resources.get("GPU", 0))
        except InputError as error:
            self.reporter.warn(f"{error} Waiting for more: an autoscaling cluster may bring them.")

    @cached_property
    def _cluster(self) -> connection.Cluster:
        """The cluster, once it is known that the run may join it."""
        cluster = connection.check(connection.address_of(self.config.cluster.address))
        if cluster.local:
            local_cluster.check_folder()
        return cluster

    def _logs(self) -> str:
        """Where Ray's logs lie, as the end of an error; empty where there are none."""
        if not self._started:
            return ""
        if self.local:
            return f" Ray's logs: {ray_private.session_folder()}/logs"
        return " Ray's logs: 'ray logs cluster' on a node of the cluster, or its dashboard"
