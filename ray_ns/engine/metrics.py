"""Measures as metrics of Ray, which a cluster's nodes offer to Prometheus: ``ray_ns_images_labelled_total`` and so on.

On a cluster without ``ray[default]`` there is no agent that offers them; they then go nowhere, and nothing fails. A
local cluster has no metrics.
"""

import os
import threading
from collections.abc import Callable, Mapping
from typing import Any

from ray_ns import measures
from ray_ns.engine.remote_cluster import RUN
from ray_ns.measures import Measure

AGAIN_SECONDS = 5.0  # Ray drops a gauge that was not set for twice its interval of 10 s


class RaySink:
    """Sends measures to Ray's metrics, with the label ``run``. Threads may share it."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._lock = threading.Lock()
        self._metrics: dict[str, Any] = {}
        self._levels: dict[tuple[str, tuple[str, ...]], tuple[Measure, float, Mapping[str, str]]] = {}

    def __call__(self, measure: Measure, value: float, labels: Mapping[str, str]) -> None:
        """Record one value, as ``measures`` asks for it."""
        metric = self._metrics.get(measure.name) or self._begun(measure)
        if measure.kind == "counter":
            metric.inc(float(value), labels)  # Ray takes no number of NumPy's
        elif measure.kind == "histogram":
            metric.observe(float(value), labels)
        else:
            metric.set(float(value), labels)
            with self._lock:
                self._levels[measure.name, tuple(labels.values())] = measure, float(value), dict(labels)

    def again(self) -> None:
        """Set all levels anew, so that they stay."""
        with self._lock:
            levels = list(self._levels.values())
        for measure, value, labels in levels:
            self._metrics[measure.name].set(value, labels)

    def forget(self, *names: str) -> None:
        """Let levels go; they are gone some 20 s later."""
        with self._lock:
            self._levels = {key: held for key, held in self._levels.items() if key[0] not in names}

    def _begun(self, measure: Measure) -> Any:
        from ray.util.metrics import Counter, Gauge, Histogram

        labels = ("run", *measure.labels)
        with self._lock:
            if measure.name not in self._metrics:
                made: Counter | Gauge | Histogram
                if measure.kind == "histogram":
                    made = Histogram(measure.name, measure.description, list(measure.buckets), labels)
                else:
                    kind = Counter if measure.kind == "counter" else Gauge
                    made = kind(measure.name, measure.description, labels)
                made.set_default_tags({"run": self._run})
                self._metrics[measure.name] = made
            return self._metrics[measure.name]


def in_worker(stage: str) -> None:
    """Send what this worker process of Ray measures to Ray's metrics, where its run has any. Asked again, quick."""
    run = os.environ.get(RUN)
    if run is None:
        return
    measures.works_on(stage)
    if not measures.used():
        measures.use(RaySink(run))


class OfDriver:
    """The metrics of a run's driver, from when it is connected to a cluster to ``end``.

    ``snapshot``: the progress of the stage under way, as ``Reporter.snapshot`` gives it.
    """

    def __init__(self, run: str, snapshot: Callable[[], Mapping[str, Any]]) -> None:
        self._sink, self._snapshot, self._stop = RaySink(run), snapshot, threading.Event()
        measures.use(self._sink)
        measures.level("ns_driver_up", 1)
        self._thread = threading.Thread(target=self._keep_on, name="metrics", daemon=True)
        self._thread.start()

    def end(self, well: bool) -> None:
        """Stop. ``well``: the driver ends as it should, which is said; else its metrics just end."""
        self._stop.set()
        self._thread.join()
        if well:
            measures.level("ns_driver_up", 0)
        measures.use(None)

    def _keep_on(self) -> None:
        while not self._stop.wait(AGAIN_SECONDS):
            self._sink.forget("ns_stage_done", "ns_stage_total")
            now = self._snapshot()
            if now:
                stage = of_prefix(now["stage"])
                measures.level("ns_stage_done", now["done"], stage=stage)
                measures.level("ns_stage_total", now["total"], stage=stage)
            self._sink.again()


def of_prefix(prefix: str) -> str:
    """The name of the stage at ``prefix``, without its turn: ``label`` of ``pool-2/rounds/1/label``."""
    return prefix.rpartition("/")[2]
