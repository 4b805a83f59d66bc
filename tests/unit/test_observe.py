"""What a run tells: plain lines, JSON lines, and the snapshot that a heartbeat carries."""

import io
import json
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


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    captured = capsys.readouterr()
    assert captured.out == "", "stdout belongs to the result"
    return captured.err.splitlines()


def events(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines(capsys)]


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
    assert {event["stage"] for event in found[1:]} == {"train"}
    assert (found[2]["done"], found[2]["total"], found[4]["seconds"]) == (5, 20, 11)


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
