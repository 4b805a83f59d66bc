"""What a stage waits for is said while nothing goes on, and a wait without end ends the run."""

import os
from types import SimpleNamespace

import pytest

from ray_ns import observe
from ray_ns.config import Cluster
from ray_ns.engine import placement, waiting
from ray_ns.engine.placement import Node, Shape
from ray_ns.engine.remote_cluster import START_SECONDS
from ray_ns.engine.waiting import Waiting
from ray_ns.errors import ResumableError
from ray_ns.observe import Reporter

FOUR = Shape("training worker", 4, 1, 0, "cluster.train_workers", "cluster.train_on", together=True)
TASKS = Shape("CPU task", 1, 1, 0, "", "cluster.decode_on", {"ray-ns/decode": "true"})


class Stage:
    """A stage that is watched, second by second. ``lacks``: what it waits for at present; ``errors``: what ended it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, limit: float = 60.0) -> None:
        self._second = 1000
        monkeypatch.setattr(observe, "time", SimpleNamespace(monotonic=lambda: self._second, time=lambda: self._second))
        self.reporter = Reporter("plain")
        self.reporter.begin("train", 100, "steps")
        self.lacks: str | None = None
        self.errors: list[ResumableError] = []
        self._waiting = Waiting(self.reporter, lambda: self.lacks, limit, self.errors.append)

    def watch(self, seconds: int) -> None:
        for _ in range(seconds):
            self._waiting.look(self._second)
            self._second += 1


def said(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if "wait" in line]


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(monkeypatch)


def test_a_stage_that_goes_on_or_lacks_nothing_says_nothing(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    stage.watch(100)
    stage.lacks = "4 CPUs wanted, 2 there"
    for done in range(1, 20):
        stage.reporter.progress(done)
        stage.watch(9)
    assert said(capsys) == []


def test_what_it_waits_for_is_said_in_ten_seconds_at_most_and_when_it_is_there(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.lacks = "4 CPUs wanted, 2 there"
    stage.watch(36)
    assert stage.reporter.snapshot()["waiting"] == "4 CPUs wanted, 2 there, 34 s"
    stage.lacks = None
    stage.watch(100)
    assert "waiting" not in stage.reporter.snapshot()
    *waits, there = said(capsys)
    assert [line.partition("waiting: ")[2] for line in waits] == [
        f"4 CPUs wanted, 2 there, {seconds} s" for seconds in (10, 22, 34)
    ]
    assert there.endswith("what was waited for is there after 36 s")


def test_a_wait_without_end_ends_the_run_with_the_mend(stage: Stage) -> None:
    stage.lacks = "4 CPUs wanted, 2 there"
    stage.watch(60)
    assert not stage.errors
    stage.watch(1)
    (error,) = stage.errors
    assert str(error).startswith("4 CPUs wanted, 2 there, after 60 s (cluster.timeout_seconds = 60). Start such nodes")


@pytest.mark.parametrize(
    ("workers", "before", "wanted"), [([1, 4], "900", "60"), (4, "900", "900"), ([1, 4], "20", "20")]
)
def test_an_elastic_training_counts_its_nodes_anew_and_a_fixed_one_waits(
    monkeypatch: pytest.MonkeyPatch, workers: int | list[int], before: str, wanted: str
) -> None:
    monkeypatch.setenv(START_SECONDS, before)
    waiting.count_anew(Cluster(train_workers=workers, timeout_seconds=900.0))
    assert os.environ[START_SECONDS] == wanted


def test_the_words_name_what_is_scarce_and_where() -> None:
    small, decoder = Node("a", {}, 2, 0), Node("b", {"ray-ns/decode": "true"}, 1, 0)
    assert placement.missing(FOUR, [small]) == "4 CPUs wanted, 2 there, for 4 training workers"
    assert placement.missing(FOUR, [small, small]) is None
    assert placement.missing(TASKS, [small]) == "1 CPU wanted, 0 there, for 1 CPU task on nodes with ray-ns/decode=true"
    assert placement.missing(TASKS, [small, decoder]) is None
    teachers = Shape("teacher actor", 4, 0, 1, "label.actors", "cluster.teachers_on")
    assert placement.missing(teachers, [Node("c", {}, 8, 1)]) is None  # one can go on
    assert placement.missing(teachers, [small]) == "1 GPU wanted, 0 there, for 1 teacher actor"


@pytest.mark.parametrize(
    ("group", "wanted"),
    [
        ([{"CPU": 1.0}] * 4, True),
        ([{"CPU": 1.0}] * 6, True),  # more than the fewest
        ([{"CPU": 1.0}] * 2, False),
        ([{"CPU": 2.0}] * 4, False),
        ([{"CPU": 1.0, "GPU": 1.0}] * 4, False),
    ],
)
def test_a_group_that_waits_is_ours_by_its_shape(group: list[dict[str, float]], wanted: bool) -> None:
    assert waiting.is_of(FOUR, group) is wanted
