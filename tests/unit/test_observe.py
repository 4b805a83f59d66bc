"""What a run tells: plain lines, JSON lines, and the snapshot that a heartbeat carries."""

import io
import json
import math
import re
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from ray_ns import observe
from ray_ns.observe import Reporter


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(observe, "time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


def told(capsys: pytest.CaptureFixture[str]) -> list[str]:
    captured = capsys.readouterr()
    assert captured.out == "", "stdout belongs to the result"
    return captured.err.splitlines()


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines of a log without the time that each begins with."""
    found = told(capsys)
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", line) for line in found), found
    return [line[20:] for line in found]


def events(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in told(capsys)]


def test_the_rate_leaves_out_what_came_before_the_first_progress(clock: Clock) -> None:
    reporter = Reporter("plain")
    reporter.begin("label", total=1000, unit="images", done=100)
    clock.now += 60  # Ray starts
    reporter.progress(200)
    assert reporter.snapshot()["rate"] == 0.0
    assert reporter.snapshot()["seconds_left"] is None
    clock.now += 10
    reporter.progress(400)
    assert reporter.snapshot() == {
        "stage": "label",
        "done": 400,
        "total": 1000,
        "unit": "images",
        "img_s": 20.0,
        "rate": 20.0,
        "seconds_left": 30.0,
    }


def test_a_new_stage_knows_nothing_of_the_rate_of_the_one_before(clock: Clock) -> None:
    reporter = Reporter("plain")
    reporter.begin("one", 10, "parts")
    reporter.progress(1)
    clock.now += 1
    reporter.progress(9)
    reporter.end("done")
    assert reporter.snapshot() == {}
    reporter.begin("two", 10, "parts")
    assert reporter.snapshot()["rate"] == 0.0
    assert reporter.snapshot()["done"] == 0


def test_a_log_gets_a_progress_line_every_ten_seconds_at_most(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    reporter = Reporter("plain")
    reporter.begin("train", 1000, "steps")
    for step in range(60):
        clock.now += 1
        reporter.progress(step)
    said = [line for line in lines(capsys) if " of 1,000 steps" in line]
    assert len(said) == 5
    assert said[-1] == "train: 54 of 1,000 steps, 1 a second, 16 min left"


def test_a_note_stands_beside_the_progress_it_came_with(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    reporter = Reporter("plain")
    reporter.begin("train", 100, "steps")
    clock.now += 11
    reporter.progress(10, "top-1 50.0% at step 10")
    assert reporter.snapshot()["note"] == "top-1 50.0% at step 10"
    assert lines(capsys)[-1] == "train: 10 of 100 steps, top-1 50.0% at step 10"
    reporter.progress(20)
    assert "note" not in reporter.snapshot()


@pytest.mark.parametrize(("done", "wanted"), [(0, "label: begins"), (3, "label: 3 of 5 shards done")])
def test_the_first_line_says_what_an_earlier_attempt_left(
    done: int, wanted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Reporter("plain").begin("label", 5, "shards", done)
    assert lines(capsys) == [wanted]


def test_the_last_line_says_the_outcome_and_the_seconds(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    reporter = Reporter("plain")
    reporter.begin("label", 5, "shards")
    clock.now += 2.5
    reporter.end("90 labels")
    assert lines(capsys)[-1] == "label: 90 labels (2.5 s)"


def test_every_json_line_is_one_object_with_its_event(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    reporter = Reporter("json")
    reporter.note("two\nlines")
    reporter.begin("train", 20, "steps")
    reporter.progress(0)
    clock.now += 11
    reporter.progress(5)
    reporter.warn("careful")
    reporter.end("loss 0.1")
    found = events(capsys)
    assert [event["event"] for event in found] == ["note", "begin", "progress", "warning", "end"]
    assert "stage" not in found[0]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event["time"]) for event in found)
    assert {event["stage"] for event in found[1:]} == {"train"}
    assert (found[2]["done"], found[2]["total"], found[4]["seconds"]) == (5, 20, 11)


def test_images_a_second_stand_in_for_units_a_second(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    reporter = Reporter("plain")
    reporter.begin("label", 40, "label shards", done=10)
    clock.now += 60  # Ray starts
    reporter.progress(11, images=1000)
    assert "img_s" not in reporter.snapshot()
    clock.now += 20
    reporter.progress(13, images=31_000)
    assert lines(capsys)[-1] == "label: 13 of 40 label shards, 1,500 img/s, 4 min left"
    assert reporter.snapshot()["img_s"] == 1500
    assert "images" not in reporter.snapshot()


def test_parts_that_end_together_make_no_rate_of_images(clock: Clock) -> None:
    reporter = Reporter("plain")
    reporter.begin("evaluate", 2, "corpora")
    clock.now += 300
    reporter.progress(1, images=50_000)
    clock.now += 0.01
    reporter.progress(2, images=100_000)
    assert "img_s" not in reporter.snapshot()


def test_units_that_are_images_need_no_second_count(clock: Clock) -> None:
    reporter = Reporter("plain")
    reporter.begin("inspect", 1000, "images")
    reporter.progress(100)
    clock.now += 10
    reporter.progress(400)
    assert reporter.snapshot()["img_s"] == 30


def test_a_training_that_goes_on_from_a_checkpoint_counts_its_rate_anew(clock: Clock) -> None:
    reporter = Reporter("plain")
    reporter.begin("train", 1000, "steps")
    reporter.progress(100, images=6400, loss=2.0)
    clock.now += 10
    reporter.progress(200, images=12_800, loss=1.0)
    assert (reporter.snapshot()["rate"], reporter.snapshot()["img_s"]) == (10, 640)
    clock.now += 300  # a worker was lost
    reporter.progress(150, images=9600, loss=1.5)
    assert reporter.snapshot()["seconds_left"] is None
    clock.now += 10
    reporter.progress(250, images=16_000, loss=1.0)
    assert (reporter.snapshot()["rate"], reporter.snapshot()["img_s"]) == (10, 640)


def test_figures_go_to_the_line_the_events_and_the_heartbeat(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    came: list[Any] = []
    reporter = Reporter("plain")
    reporter.sinks.append(came.append)
    reporter.begin("train", 1000, "steps")
    clock.now += 11
    figures: dict[str, Any] = {"loss": 0.123456, "gap": math.nan, "size": math.inf, "name": "x", "right": True}
    reporter.progress(100, "top-1 50.0% at step 90", **figures)
    assert lines(capsys)[-1] == "train: 100 of 1,000 steps, loss 0.1235, top-1 50.0% at step 90"
    for found in (came[-1], reporter.snapshot()):
        assert (found["loss"], found["note"]) == (0.123456, "top-1 50.0% at step 90")
        assert not {"gap", "size", "name", "right"} & {*found}
    reporter.begin("next", 10, "steps")
    assert "loss" not in reporter.snapshot()


def test_what_it_waits_for_is_said_at_once_and_every_ten_seconds(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    reporter = Reporter("plain")
    reporter.begin("train", 1000, "steps")
    for second in range(25):
        reporter.waiting(f"4 CPUs wanted, 2 there, {second} s")
        clock.now += 1
    assert lines(capsys)[1:] == [f"train: waiting: 4 CPUs wanted, 2 there, {at} s" for at in (0, 11, 22)]
    assert reporter.snapshot()["waiting"] == "4 CPUs wanted, 2 there, 24 s"
    reporter.progress(1)
    assert "waiting" not in reporter.snapshot()


def test_while_it_waits_no_progress_is_said_beside_it(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    reporter = Reporter("plain")
    reporter.begin("train", 1000, "steps")
    for second in range(1, 61):  # of a run: the steps done are looked up each second, what it waits for every two
        clock.now += 1
        reporter.progress(40)
        if second > 20:
            reporter.waiting("a GPU")
    said = [line.partition(": ")[2] for line in lines(capsys)[1:]]
    assert said == ["40 of 1,000 steps", *["waiting: a GPU"] * 4]
    assert reporter.snapshot()["waiting"] == "a GPU"


@pytest.mark.parametrize("terminal", [False, True])
def test_a_sink_gets_every_event_whatever_is_printed(
    terminal: bool, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("TERM", "xterm")
    came: list[Any] = []
    reporter = Reporter("auto")
    assert (reporter._live is not None) == terminal
    reporter.sinks.append(came.append)
    reporter.note("hello")
    reporter.begin("train", 100, "steps")
    for step in range(25):
        clock.now += 1
        reporter.progress(step)
    reporter.waiting("a GPU")
    reporter.warn("careful")
    reporter.end("done")
    reporter.failed("no more disk", 3)
    kinds = ["note", "begin", "progress", "progress", "waiting", "warning", "end", "error"]
    assert [event["event"] for event in came] == kinds
    assert came[2]["done"] == 10
    assert (came[-1]["text"], came[-1]["exit_code"]) == ("no more disk", 3)


@pytest.mark.parametrize("text", ["[bold]not markup[/bold] [/oops]", "x" * 500, "/data/[1]/a.parquet: ümlaut"])
def test_text_is_said_as_it_is_on_one_line(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    Reporter("plain").note(text)
    assert lines(capsys) == [text]


def test_a_warning_is_marked_as_one(capsys: pytest.CaptureFixture[str]) -> None:
    Reporter("plain").warn("one image is unreadable")
    assert lines(capsys) == ["warning: one image is unreadable"]


def test_without_a_terminal_auto_writes_no_escape_codes(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = Reporter("auto")
    reporter.begin("train", 3, "steps")
    reporter.progress(1)
    reporter.end("done")
    assert all("\x1b" not in line for line in lines(capsys))


@pytest.mark.parametrize("total", [0, 4])
def test_a_live_line_on_a_terminal_is_gone_after_the_stage(total: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    reporter = Reporter("auto")
    assert reporter._live is not None
    reporter.begin("train", total, "steps")
    reporter.progress(min(1, total))
    assert len(reporter._live.tasks) == 1
    reporter.end("done")
    assert reporter._live.tasks == []
    assert not reporter._live.live.is_started


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (99.4, "99 s"), (100, "2 min"), (946, "16 min"), (6000, "1 h 40 min"), (172_800, "2 d 0 h")],
)
def test_a_time_is_said_in_words(seconds: float, said: str) -> None:
    assert observe.in_time(seconds) == said


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_the_live_lines_stay_whole_with_scores_shown(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(width))
    reporter = Reporter("auto")
    assert reporter._live is not None
    reporter.begin("rounds/10/finetune", 2_000_000, "steps")
    reporter.progress(1_000_000, "top-1 97.8% at step 900,000, at best 98.0% at step 500,000")
    shown = Console(file=io.StringIO(), width=width, color_system=None)
    with shown.capture() as text:
        shown.print(reporter._live.get_renderable())
    reporter.end("done")
    first, *state = [line.rstrip() for line in text.get().splitlines()]
    assert all(len(line) <= width for line in (first, *state))
    assert (
        " ".join(line.strip() for line in state)
        == "1,000,000 of 2,000,000 steps, top-1 97.8% at step 900,000, at best 98.0% at step 500,000"
    )
    if width >= 40:
        assert first.startswith("rounds/10/finetune ")
        assert first.endswith("0:00:00")
