from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ray_ns.artifacts.network import Network
from ray_ns.artifacts.scores import Scores
from ray_ns.artifacts.selection import Selection
from ray_ns.config import Config
from ray_ns.evaluate import fixed
from ray_ns.evaluate.verdict import Verdict
from ray_ns.export.verdicts import Judged
from ray_ns.methods.outcome import Outcome, Round
from ray_ns.models.files import CONFIG, WEIGHTS
from ray_ns.report.terminal.run import show
from ray_ns.seals import canonical
from ray_ns.store.commit import Commit, Part, StoredObject
from ray_ns.store.objects import LocalStore


def commit(stage: str, summary: dict[str, Any]) -> Commit:
    place = f"{stage}/data/000000-abc"
    objects = {name: StoredObject(f"{place}/{name}", f"sha of {stage}/{name}", 1) for name in (CONFIG, WEIGHTS)}
    return Commit(stage, f"digest of {stage}", "inputs", (Part(objects, {}),), summary)


@pytest.fixture
def turn(config: Config) -> Callable[..., Round]:
    def made(name: str, validation: float | None, test: float | None, selected: tuple[int, int] | None = None) -> Round:
        scores = {"validation": {"top1": validation}, "test": {"top1": test}}
        made = selected and commit(f"{name}/select", {"images": selected[0], "copies": selected[1]})
        network = Network(commit(f"{name}/train", {"parameters": 13_557}))
        scored = Scores(commit(f"{name}/evaluate", scores), LocalStore("/"))
        return Round(name, config.student, network, scored, Selection(made) if made else None)

    return made


@pytest.fixture
def better(turn: Callable[..., Round]) -> Outcome:
    """The second student is the best on validation images, the first on test images, which choose nothing."""
    rounds = [
        turn("rounds/0", 0.80, 0.79),
        turn("rounds/1", 0.85, 0.90, (1000, 1200)),
        turn("rounds/2", 0.90, 0.865, (1100, 1100)),
    ]
    return Outcome(rounds, "validation", [turn("control", 0.83, 0.82)])


def printed(outcome: Outcome, capsys: pytest.CaptureFixture[str]) -> str:
    show(outcome, "/runs/demo", [6.0] * len(outcome.all), [], {})
    return capsys.readouterr().out


def test_a_row_per_round_and_one_for_the_control(better: Outcome) -> None:
    rows = better.as_json()["rounds"]
    assert [row["round"] for row in rows] == ["rounds/0", "rounds/1", "rounds/2", "control"]
    assert [row["best"] for row in rows] == [False, False, True, False]
    assert [(row["kept"], row["duplicates"]) for row in rows] == [(0, 0), (1000, 200), (1100, 0), (0, 0)]
    assert [row["validation_top1"] for row in rows] == [0.80, 0.85, 0.90, 0.83]
    assert [row["test_top1"] for row in rows] == [0.79, 0.90, 0.865, 0.82]
    assert {row["parameters"] for row in rows} == {13_557}


def test_gains_are_points_on_test_of_the_best_by_validation(better: Outcome) -> None:
    report = better.as_json()
    assert report["best"] == "rounds/2"
    assert report["gain_points"] == {"over_teacher": 7.5, "over_control": 4.5}


def test_the_best_network_is_named_by_folder_and_hash(better: Outcome) -> None:
    report = better.as_json()
    assert report["best_model"] == "rounds/2/train/data/000000-abc"
    assert report["best_weights_sha256"] == f"sha of rounds/2/train/{WEIGHTS}"


def test_the_report_has_one_canonical_json(better: Outcome) -> None:
    assert canonical(better.as_json()) == canonical(better.as_json())


def test_without_a_control_no_gain_over_it_is_claimed(better: Outcome) -> None:
    report = Outcome(better.rounds, "validation").as_json()
    assert report["gain_points"] == {"over_teacher": 7.5}
    assert [row["round"] for row in report["rounds"]] == ["rounds/0", "rounds/1", "rounds/2"]


def test_the_table_shows_every_round_and_marks_the_best(better: Outcome, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(better, capsys)
    lines = [line.strip() for line in text.splitlines()]
    (teacher,) = [line for line in lines if line.startswith("0: teacher")]
    (first,) = [line for line in lines if line.startswith("1: student")]
    (second,) = [line for line in lines if line.startswith("2: student")]
    (control,) = [line for line in lines if line.startswith("control: labels only")]
    assert teacher.split() == ["0:", "teacher", "resnet10t", "13,557", "-", "-", "80.0", "79.0", "6"]
    assert first.split() == ["1:", "student", "resnet10t", "13,557", "1,000", "200", "85.0", "90.0", "6"]
    assert second.split() == ["2:", "student", "*", "resnet10t", "13,557", "1,100", "0", "90.0", "86.5", "6"]
    assert control.split() == ["control:", "labels", "only", "resnet10t", "13,557", "-", "-", "83.0", "82.0", "6"]
    assert lines[0] == "best network: /runs/demo/best"
    assert max(map(len, lines[2:])) <= 120


def test_fixres_is_told_below_the_table_with_its_control(
    turn: Callable[..., Round], capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = {"before": 20, "untuned": 28, "tuned": 28, "control": 20}
    shares = {"before": 0.8, "untuned": 0.5, "tuned": 0.9, "control": 0.85}
    views = ("validation", "test", *fixed.SHIFTS)
    looks = {look: dict.fromkeys(views, np.arange(100) < 100 * share) for look, share in shares.items()}
    found = fixed.outcome(looks, sizes)
    rounds = [turn("rounds/0", 0.9, 0.9), replace(turn("rounds/1", 0.9, 0.9, (1, 1)), fixed=found)]
    outcome = Outcome(rounds, "validation")
    assert outcome.as_json()["rounds"][1]["fixres"] == found
    assert "fixres" not in outcome.as_json()["rounds"][0]
    lines = [line.split() for line in printed(outcome, capsys).splitlines()]
    assert ["1:", "student", "as", "trained", "20", "80.0", "80.0", "80.0"] in lines
    assert [
        "1:",
        "student",
        "control:",
        "corrected",
        "at",
        "the",
        "train",
        "size",
        "20",
        "85.0",
        "85.0",
        "85.0",
    ] in lines
    told = " ".join(word for line in lines for word in line)
    assert "1: student: corrected against as trained, validation: +10.0 points" in told
    assert "1: student: the corrected network goes on" in told


def test_each_gain_has_its_interval_and_its_verdict(better: Outcome, capsys: pytest.CaptureFixture[str]) -> None:
    judged = [
        Judged("rounds/2", "rounds/0", "test", Verdict(200, 7.5, 2.25, 12.75, (20, 5), 0.004)),
        Judged("rounds/2", "control", "test", Verdict(200, 4.5, -0.5, 9.5, (17, 8), 0.09), "sort 761 more test images"),
    ]
    show(better, "/runs/demo", [6.0] * 4, judged, {})
    lines = capsys.readouterr().out.splitlines()
    assert "student 2 against the teacher, on test: +7.5 points on 200 images (95 %: +2.2 to +12.8): better" in lines
    assert lines[2] == (
        "student 2 against the control, on test: +4.5 points on 200 images (95 %: -0.5 to +9.5): cannot tell, less "
        "than 5.5 points does not show on so few; sort 761 more test images to see 2 points"
    )


def test_no_better_student_is_said_plainly(turn: Callable[..., Round], capsys: pytest.CaptureFixture[str]) -> None:
    rounds = [turn("rounds/0", 0.80, 0.79), turn("rounds/1", 0.75, 0.95, (10, 10))]
    outcome = Outcome(rounds, "validation", [turn("control", 0.83, 0.82)])
    text = printed(outcome, capsys)
    assert "the teacher is kept: no student has more of the validation images right." in text
    assert "0: teacher *" in text
    assert outcome.as_json()["gain_points"]["over_teacher"] == 0


def test_a_run_ended_early_has_a_table_too(turn: Callable[..., Round], capsys: pytest.CaptureFixture[str]) -> None:
    teacher = turn("rounds/0", 0.80, 0.79)
    assert "0: teacher *" in printed(Outcome([teacher], "auto", complete=False), capsys)


def test_what_is_not_measured_is_said_and_why_the_best_is_the_best(
    turn: Callable[..., Round], capsys: pytest.CaptureFixture[str]
) -> None:
    rounds = [turn("rounds/0", None, None), turn("rounds/1", None, None, (10, 10))]
    text = printed(Outcome(rounds, "always"), capsys)
    assert "why: student 1 becomes the teacher, as run.promote: always has it." in text
    assert "not measured on validation and test: there are no such images (data.held_out: 0)." in text
    (student,) = [line.split() for line in text.splitlines() if line.startswith("1: student *")]
    assert student[-3:-1] == ["-", "-"]
    assert Outcome(rounds, "always").as_json()["gain_points"] == {"over_teacher": None}


def test_top5_has_a_column_where_it_is_measured(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    figures = {name: {"top1": 0.8, "top5": 0.97} for name in ("validation", "test")}
    scored = Scores(commit("rounds/0/evaluate", figures), LocalStore("/"))
    network = Network(commit("rounds/0/train", {"parameters": 7}))
    text = printed(Outcome([Round("rounds/0", config.teacher, network, scored)], "auto"), capsys)
    assert any(line.split()[-3:] == ["80.0", "97.0", "6"] for line in text.splitlines())


def test_fixres_without_images_to_measure_on_has_a_dash(
    turn: Callable[..., Round], capsys: pytest.CaptureFixture[str]
) -> None:
    nothing = {name: np.zeros(0, bool) for name in fixed.SEEN}
    looks = (fixed.BEFORE, fixed.UNTUNED, fixed.TUNED, fixed.CONTROL)
    found = fixed.outcome(dict.fromkeys(looks, nothing), dict.fromkeys(looks, 20))
    rounds = [replace(turn("rounds/0", None, None), fixed=found)]
    text = printed(Outcome(rounds, "always"), capsys)
    rows = [line.split() for line in text.splitlines() if fixed.CALLED[fixed.BEFORE] in line and "against" not in line]
    assert [row[-4:] for row in rows] == [["20", "-", "-", "-"]]
    assert "0.0" not in text
    assert "test: not measured" in text
