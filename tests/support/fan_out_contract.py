"""What everything that offers ``engine.fanout.Tasks`` must do. ``python FILE``: what Ray must do, on a cluster.

Ray is started in a process of its own: a second local cluster of one process keeps the first one's token and fails.
"""

import os
import signal
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ray_ns.config import Cluster, Config, Label
from ray_ns.engine import fanout, local_cluster
from ray_ns.engine.fanout import FanOut, Tasks
from ray_ns.errors import InputError
from ray_ns.store.processes import runs_here, this_process


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


def every_item_has_its_result_once_in_any_order(tasks: Tasks) -> None:
    found = list(tasks.map(scaled, range(25), 10, {"plus": 1}))
    assert len(found) == 25
    assert dict(found) == {item: 10 * item + 1 for item in range(25)}


def no_item_no_result(tasks: Tasks) -> None:
    assert list(tasks.map(scaled, [], 1, {})) == []


def an_error_of_ours_comes_out_as_itself(tasks: Tasks) -> None:
    with pytest.raises(InputError) as raised:
        list(tasks.map(refused, range(5)))
    assert type(raised.value) is InputError
    assert str(raised.value) == "data.pool: item 3 is no image. Give others."


def any_other_error_of_a_task_is_raised(tasks: Tasks) -> None:
    with pytest.raises(ZeroDivisionError):
        list(tasks.map(broken, [1, 0]))


def results_are_combined_in_the_order_of_their_items_and_shared(tasks: Tasks) -> None:
    large, small = tasks.combine(length, ["a", "four", "be"], summed)
    assert small == {"sum": 7}
    assert dict(tasks.map(at, range(3), large)) == {0: 1, 1: 4, 2: 2}


CONTRACT = (
    every_item_has_its_result_once_in_any_order,
    no_item_no_result,
    an_error_of_ours_comes_out_as_itself,
    any_other_error_of_a_task_is_raised,
    results_are_combined_in_the_order_of_their_items_and_shared,
)


def a_task_whose_worker_dies_is_run_again(tasks: Tasks, folder: Path) -> None:
    assert len(list(tasks.map(killed_once, range(3), str(folder)))) == 3


def tasks_wait_until_those_before_are_done(tasks: Tasks, folder: Path) -> None:
    results = tasks.map(noted, range(50), str(folder))
    next(results)
    assert len(list(folder.iterdir())) <= fanout.PER_CPU * tasks.cpus
    assert len(list(results)) == 49


def workers_that_are_dismissed_are_gone_when_the_driver_goes_on(tasks: Tasks, folder: Path) -> None:
    fanout.LEAVE_SECONDS = 30.0
    for item in range(2):
        (folder / str(item)).touch()
    tasks.start(this_process, 2)
    workers = [worker for _, worker in tasks.map(killed_once, range(2), str(folder))]
    assert all(map(runs_here, workers))
    tasks.dismiss()
    assert not any(map(runs_here, workers))


ON_RAY_ALONE = (
    a_task_whose_worker_dies_is_run_again,
    tasks_wait_until_those_before_are_done,
    workers_that_are_dismissed_are_gone_when_the_driver_goes_on,
)


if __name__ == "__main__":
    local_cluster.start(2, 0, 100)
    config = Config.model_construct(cluster=Cluster(), label=Label())
    on_ray = FanOut(cast(Any, SimpleNamespace(ray=lambda: None, local=True, config=config, named=str)))
    for check in CONTRACT:
        check(on_ray)
        print(check.__name__, flush=True)
    for alone in ON_RAY_ALONE:
        with tempfile.TemporaryDirectory() as marks:
            alone(on_ray, Path(marks))
        print(alone.__name__, flush=True)
