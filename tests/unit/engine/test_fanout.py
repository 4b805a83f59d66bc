"""Tasks on Ray and tasks in this process: one contract, so that what a test runs in-process is what a run does."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from support.fan_out import InProcess

from ray_ns.engine import fanout, local_cluster
from ray_ns.engine.fanout import FanOut, Tasks
from ray_ns.errors import InputError
from ray_ns.store.processes import runs_here, this_process


@pytest.fixture(scope="module")
def on_ray() -> Iterator[FanOut]:
    import ray

    environment = dict(os.environ)
    local_cluster.start(2, 0, 100)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # Ray's workers cannot import this module
    yield FanOut(cast(Any, SimpleNamespace(ray=lambda: None)))
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    ray.shutdown()
    os.environ.clear()
    os.environ.update(environment)


@pytest.fixture(params=["InProcess", pytest.param("FanOut", marks=pytest.mark.ray)])
def tasks(request: pytest.FixtureRequest) -> Tasks:
    return InProcess() if request.param == "InProcess" else request.getfixturevalue("on_ray")


def scaled(item: int, factor: int, names: dict[str, int]) -> int:
    return item * factor + names["plus"]


def refused(item: int) -> int:
    if item == 3:
        raise InputError("data.pool: item 3 is no image. Give others.")
    return item


def broken(item: int) -> float:
    return 1 / item


def length(text: str) -> int:
    return len(text)


def summed(*lengths: int) -> tuple[list[int], dict[str, int]]:
    return list(lengths), {"sum": sum(lengths)}


def at(item: int, values: list[int]) -> int:
    return values[item]


def killed_once(item: int, marks: str) -> dict[str, Any]:
    mark = Path(marks, str(item))
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return this_process()


def noted(item: int, marks: str) -> int:
    Path(marks, str(item)).touch()
    return item


def test_every_item_has_its_result_once_in_any_order(tasks: Tasks) -> None:
    found = list(tasks.map(scaled, range(25), 10, {"plus": 1}))
    assert len(found) == 25
    assert dict(found) == {item: 10 * item + 1 for item in range(25)}


def test_no_item_no_result(tasks: Tasks) -> None:
    assert list(tasks.map(scaled, [], 1, {})) == []


def test_an_error_of_ours_comes_out_as_itself(tasks: Tasks) -> None:
    with pytest.raises(InputError) as raised:
        list(tasks.map(refused, range(5)))
    assert type(raised.value) is InputError
    assert str(raised.value) == "data.pool: item 3 is no image. Give others."


def test_what_else_a_task_raises_is_raised(tasks: Tasks) -> None:
    with pytest.raises(ZeroDivisionError):
        list(tasks.map(broken, [1, 0]))


def test_results_are_combined_in_the_order_of_their_items_and_shared(tasks: Tasks) -> None:
    words = ["a", "four", "be"]
    large, small = tasks.combine(length, words, summed)
    assert small == {"sum": 7}
    assert dict(tasks.map(at, range(3), large)) == {0: 1, 1: 4, 2: 2}


@pytest.mark.ray
def test_a_task_whose_worker_dies_is_run_again(on_ray: FanOut, tmp_path: Path) -> None:
    assert len(list(on_ray.map(killed_once, range(3), str(tmp_path)))) == 3


@pytest.mark.ray
def test_tasks_wait_until_those_before_are_done(on_ray: FanOut, tmp_path: Path) -> None:
    results = on_ray.map(noted, range(50), str(tmp_path))
    next(results)
    assert len(list(tmp_path.iterdir())) <= fanout.PER_CPU * on_ray.cpus
    assert len(list(results)) == 49


@pytest.mark.ray
def test_workers_that_are_dismissed_are_gone_when_the_driver_goes_on(
    on_ray: FanOut, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(fanout, "LEAVE_SECONDS", 30.0)
    for item in range(2):
        (tmp_path / str(item)).touch()
    on_ray.start(this_process, 2)
    workers = [worker for _, worker in on_ray.map(killed_once, range(2), str(tmp_path))]
    assert all(map(runs_here, workers))
    on_ray.dismiss()
    assert not any(map(runs_here, workers))
