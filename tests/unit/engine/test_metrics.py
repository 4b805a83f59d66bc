"""Measures on their way to Ray's metrics."""

import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from ray_ns import measures
from ray_ns.engine import metrics
from ray_ns.engine.remote_cluster import RUN


class Ray:
    """In the place of ``ray.util.metrics``: keeps what is recorded. It refuses what Ray refuses."""

    def __init__(self) -> None:
        self.made: dict[str, tuple[Any, ...]] = {}
        self.values: list[tuple[str, float, dict[str, str]]] = []
        self.module = SimpleNamespace(
            Counter=self._kind("inc"), Gauge=self._kind("set"), Histogram=self._kind("observe")
        )

    def _kind(self, verb: str) -> Any:
        def make(name: str, description: str, *rest: Any) -> Any:
            assert name not in self.made
            self.made[name] = (verb, *rest)
            defaults: dict[str, str] = {}

            def record(value: float, tags: dict[str, str]) -> None:
                assert type(value) is float
                assert {*defaults, *tags} == {*rest[-1]}
                self.values.append((name, value, {**defaults, **tags}))

            return SimpleNamespace(**{verb: record, "set_default_tags": defaults.update})

        return make

    def of(self, name: str) -> list[float]:
        return [value for found, value, _ in self.values if found == name]


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ray]:
    found = Ray()
    monkeypatch.setitem(sys.modules, "ray.util.metrics", found.module)
    yield found
    measures.use(None)
    measures.works_on("")


def test_every_measure_becomes_one_of_rays(ray: Ray) -> None:
    measures.use(metrics.RaySink("digits-12ab34"))
    for measure in measures.MEASURES.values():
        labels = dict.fromkeys(measure.labels, "x")
        {"counter": measures.count, "histogram": measures.timed, "level": measures.level}[measure.kind](
            measure.name, 2, **labels
        )
        assert ray.values[-1] == (measure.name, 2.0, {"run": "digits-12ab34", **labels})
    assert ray.made["ns_retries"] == ("inc", ("run", "what", "stage"))
    assert ray.made["ns_store_seconds"] == ("observe", list(measures.SECONDS), ("run", "verb"))
    assert ray.made["ns_loss"] == ("set", ("run", "stage"))


def test_levels_are_set_anew_until_they_are_forgotten(ray: Ray) -> None:
    sink = metrics.RaySink("run")
    measures.use(sink)
    measures.level("ns_top1", 0.5, corpus="test")
    measures.level("ns_top1", 0.6, corpus="test")
    measures.level("ns_top1", 0.7, corpus="validation")
    measures.level("ns_driver_up", 1)
    ray.values.clear()
    sink.again()
    assert sorted(ray.of("ns_top1")) == [0.6, 0.7]
    sink.forget("ns_top1")
    ray.values.clear()
    sink.again()
    assert [name for name, _, _ in ray.values] == ["ns_driver_up"]


def test_a_worker_measures_where_its_run_is_named(ray: Ray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(RUN, raising=False)
    metrics.in_worker("label")
    assert not measures.used()
    monkeypatch.setenv(RUN, "digits-12ab34")
    metrics.in_worker("label")
    measures.count("ns_images_labelled", 3)
    metrics.in_worker("evaluate")
    measures.count("ns_images_labelled", 4)
    assert [(value, labels["stage"]) for _, value, labels in ray.values] == [(3, "label"), (4, "evaluate")]


def test_a_driver_is_up_and_its_stage_goes_on_until_it_ends(ray: Ray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "AGAIN_SECONDS", 0.01)
    now: dict[str, Any] = {"stage": "pool-2/rounds/1/label", "done": 3, "total": 9}
    driver = metrics.OfDriver("run", lambda: now)
    wait_for(lambda: len(ray.of("ns_stage_done")) > 2)
    assert ray.values[-1][2] in ({"run": "run"}, {"run": "run", "stage": "label"})
    now.clear()
    wait_for(lambda: ray.of("ns_driver_up")[-5:] == [1.0] * 5 and ray.values[-3:] == [ray.values[-1]] * 3)
    driver.end(well=True)
    assert ray.of("ns_driver_up")[-1] == 0.0
    assert not measures.used()


def test_a_driver_that_fails_does_not_say_that_it_has_ended(ray: Ray) -> None:
    metrics.OfDriver("run", dict).end(well=False)
    assert ray.of("ns_driver_up") == [1.0]


def wait_for(condition: Any) -> None:
    until = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)
