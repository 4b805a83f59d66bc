"""What a stage waits for is said while nothing goes on, and a wait without end ends the run."""

import pytest

from ray_ns.engine import placement, waiting
from ray_ns.engine.placement import Node, Shape
from ray_ns.engine.waiting import Waiting
from ray_ns.errors import ResumableError
from ray_ns.observe import Reporter

FOUR = Shape("training worker", 4, 1, 0, "cluster.train_workers", "cluster.train_on", together=True)
TASKS = Shape("CPU task", 1, 1, 0, "", "cluster.decode_on", {"ray-ns/decode": "true"})


class Stage:
    """A stage that is watched, second by second. ``lacks``: what it waits for at present; ``errors``: what ended it."""

    def __init__(self, limit: float = 1800.0) -> None:
        self.reporter = Reporter("plain")
        self.reporter.begin("train", 100, "steps")
        self.lacks: str | None = None
        self.errors: list[ResumableError] = []
        self._waiting = Waiting(self.reporter, lambda: self.lacks, limit, self.errors.append)
        self._second = 0

    def watch(self, seconds: int) -> None:
        for _ in range(seconds):
            self._waiting.look(self._second)
            self._second += 1


def said(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()[1:]


def test_a_stage_that_goes_on_or_lacks_nothing_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    stage = Stage()
    stage.watch(100)
    stage.lacks = "4 CPUs wanted, 2 there"
    for done in range(1, 20):
        stage.reporter.progress(done)
        stage.watch(9)
    assert [line for line in said(capsys) if "waiting" in line] == []


def test_what_it_waits_for_is_said_every_ten_seconds_and_when_it_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    stage = Stage()
    stage.watch(1)
    stage.lacks = "4 CPUs wanted, 2 there"
    stage.watch(34)
    stage.lacks = None
    stage.watch(100)
    lines = said(capsys)
    assert [line.partition("waiting: ")[2] for line in lines[:3]] == [
        f"4 CPUs wanted, 2 there, {seconds} s" for seconds in (10, 20, 30)
    ]
    assert [line.endswith("what was waited for is there after 40 s") for line in lines[3:]] == [True]


def test_a_wait_without_end_ends_the_run_with_the_mend(capsys: pytest.CaptureFixture[str]) -> None:
    stage = Stage(limit=60)
    stage.lacks = "4 CPUs wanted, 2 there"
    stage.watch(60)
    assert not stage.errors
    stage.watch(1)
    (error,) = stage.errors
    assert str(error).startswith("4 CPUs wanted, 2 there, after 60 s (cluster.timeout_seconds = 60). Start such nodes")


def test_the_words_name_what_is_scarce_and_where() -> None:
    small, decoder = Node("a", {}, 2, 0), Node("b", {"ray-ns/decode": "true"}, 1, 0)
    assert placement.missing(FOUR, [small]) == "4 CPUs wanted for 4 training workers, 2 there"
    assert placement.missing(FOUR, [small, small]) is None
    assert placement.missing(TASKS, [small]) == "1 CPU wanted for 1 CPU task on nodes with ray-ns/decode=true, 0 there"
    assert placement.missing(TASKS, [small, decoder]) is None
    teachers = Shape("teacher actor", 4, 0, 1, "label.actors", "cluster.teachers_on")
    assert placement.missing(teachers, [Node("c", {}, 8, 1)]) is None  # one can go on
    assert placement.missing(teachers, [small]) == "1 GPU wanted for 1 teacher actor, 0 there"


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
