"""Algorithm 1 over stages that only note what they are asked: no Ray, no torch, no file."""

from typing import Any

import pytest
from support.scripted import Scripted

from ray_ns.config import Config, GivenTeacher, Student
from ray_ns.methods.noisy_student import noisy_student
from ray_ns.methods.outcome import Outcome


@pytest.fixture
def asked(config: Config):
    """The outcome and the log of a run with these validation scores and settings; student n of 4 has 10 + n steps."""

    def run(*validation: float, control: bool = False, **settings: Any) -> tuple[Outcome, Scripted]:
        students = [config.students[0].model_copy(update={"steps": 11 + number}) for number in range(4)]
        changed = {
            "teacher": config.teacher.model_copy(update={"steps": 5}),
            "student": students,
            "run": config.run.model_copy(update={"rounds": 4, "patience": 1, "promote": "validation", **settings}),
            "control": config.control.model_copy(update={"enabled": control}),
        }
        turns = Scripted([*validation, *([0.0] * 5)])
        return noisy_student(turns, config.model_copy(update=changed)), turns

    return run


def test_the_teacher_of_round_0_learns_from_labelled_images_alone(asked) -> None:
    assert asked(0.5)[1].only("train")[0] == ("rounds/0", 5, None, None)


@pytest.mark.parametrize("student", [0.4, 0.9])
def test_a_teacher_that_is_given_is_taken_and_all_else_is_as_ever(config: Config, student: float) -> None:
    given = GivenTeacher.model_validate({"from": "/a/network"})
    logs, outcomes = [], []
    for teacher in (config.teacher, given):
        turns = Scripted([0.5, student, 0.0, 0.0])
        outcomes.append(noisy_student(turns, config.model_copy(update={"teacher": teacher})))
        logs.append(turns.asked)
    assert logs[1][0] == ("take", "rounds/0", "/a/network")
    assert logs[1][1:] == logs[0][1:]
    rows, reports = [it.as_json().pop("rounds") for it in outcomes], [it.as_json() for it in outcomes]
    assert rows[1][0].pop("given")
    assert rows[1][0].pop("model") == "of rounds/0"
    assert rows[0][0].pop("model") == "resnet10t"
    assert rows[1] == rows[0]
    assert {**reports[1], "rounds": None} == {**reports[0], "rounds": None}


def test_each_student_becomes_the_teacher_while_it_is_better(asked) -> None:
    outcome, turns = asked(0.5, 0.6, 0.7, 0.8, 0.9)
    assert [(place, teacher) for place, teacher, _ in turns.only("label")] == [
        (f"rounds/{number}", f"rounds/{number - 1}") for number in (1, 2, 3, 4)
    ]
    assert [it.name for it in outcome.rounds] == [f"rounds/{number}" for number in range(5)]
    assert outcome.best.name == "rounds/4"


def test_the_best_so_far_labels_each_round_not_the_last(asked) -> None:
    _, turns = asked(0.5, 0.9, 0.6, 0.7, patience=3)
    assert [teacher for _, teacher, _ in turns.only("label")] == ["rounds/0", "rounds/1", "rounds/1", "rounds/1"]


def test_a_student_learns_from_the_selection_of_its_own_round_and_may_begin_as_its_teacher(asked) -> None:
    _, turns = asked(0.5, 0.9, 0.6, 0.7, patience=3)
    assert turns.only("train")[1:] == [
        ("rounds/1", 11, "selection of rounds/1", "rounds/0"),
        ("rounds/2", 12, "selection of rounds/2", "rounds/1"),
        ("rounds/3", 13, "selection of rounds/3", "rounds/1"),
        ("rounds/4", 14, "selection of rounds/4", "rounds/1"),
    ]


@pytest.mark.parametrize(
    ("validation", "patience", "rounds"),
    [
        ((0.5, 0.4), 1, 1),
        ((0.5, 0.5), 1, 1),  # an equal round is no better
        ((0.5, 0.6, 0.6), 1, 2),
        ((0.5, 0.6, 0.7, 0.65), 1, 3),
        ((0.5, 0.4, 0.45), 2, 2),
        ((0.5, 0.4, 0.6, 0.55, 0.6), 2, 4),  # a better one begins the count anew
        ((0.5, 0.6, 0.7, 0.8, 0.9), 1, 4),  # run.rounds ends it
    ],
)
def test_it_stops_after_patience_rounds_that_are_no_better(asked, validation, patience: int, rounds: int) -> None:
    assert len(asked(*validation, patience=patience)[0].rounds) == 1 + rounds


def test_of_two_equal_rounds_the_earlier_is_the_best(asked) -> None:
    assert asked(0.5, 0.6, 0.6)[0].best.name == "rounds/1"


def test_a_tie_or_a_student_that_may_be_worse_is_promoted_and_stops_nothing(asked) -> None:
    outcome, turns = asked(0.60, 0.60, 0.58, 0.59, 0.58, promote="auto")
    assert [teacher for _, teacher, _ in turns.only("label")] == [f"rounds/{number}" for number in range(4)]
    assert outcome.best.name == "rounds/4"
    assert [it.promoted for it in outcome.decided] == [True] * 4
    assert turns.told[0].startswith("student 1 is not shown to be worse than its teacher, and takes its place: ")


def test_a_student_that_is_worse_beyond_chance_is_not_promoted(asked) -> None:
    outcome, turns = asked(0.60, 0.80, 0.50, 0.78, 0.79, patience=2, promote="auto", control=True)
    assert [teacher for _, teacher, _ in turns.only("label")] == ["rounds/0", "rounds/1", "rounds/1", "rounds/3"]
    assert [it.promoted for it in outcome.decided] == [True, False, True, True]
    assert outcome.best.name == "rounds/4"
    assert turns.only("train")[-1][:2] == ("control", 14)
    assert turns.told[1].startswith("student 2 is worse than its teacher, which stays: on validation -30.0 points")


def test_auto_stops_after_patience_rounds_that_are_worse(asked) -> None:
    outcome, _ = asked(0.80, 0.50, 0.50, patience=2, promote="auto", control=True)
    assert [it.name for it in outcome.rounds] == ["rounds/0", "rounds/1", "rounds/2"]
    assert outcome.best.name == "rounds/0"
    report = outcome.as_json()
    assert [row.get("promoted") for row in report["rounds"]] == [None, False, False, None]
    assert report["why"] == "the teacher is kept: every student was worse on the validation images"


def test_always_makes_every_student_the_teacher_and_the_last_the_best(asked) -> None:
    outcome, turns = asked(0.9, 0.5, 0.4, 0.3, 0.2, promote="always")
    assert [teacher for _, teacher, _ in turns.only("label")] == [f"rounds/{number}" for number in range(4)]
    assert outcome.best.name == "rounds/4"
    assert outcome.as_json()["promote"] == "always"


def test_the_report_of_a_run_that_chooses_by_top1_is_what_it_was(asked) -> None:
    report = asked(0.5, 0.6, 0.55)[0].as_json()
    assert set(report) == {"rounds", "best", "best_model", "best_weights_sha256", "gain_points"}
    assert all(set(row) == set(report["rounds"][0]) for row in report["rounds"])


def test_no_round_sees_the_test_images(asked) -> None:
    outcome, _ = asked(0.5, 0.6, 0.7, patience=4)  # the scripted test scores fall as validation rises
    assert outcome.best.name == "rounds/2"


def test_every_round_labels_and_filters_the_whole_pool(asked) -> None:
    _, turns = asked(0.5, 0.6, 0.7, 0.8, 0.9, mode="every_round")
    assert {only for *_, only in turns.only("label")} == {None}
    assert turns.only("select") == [
        ("rounds/1", "labels of rounds/1", None, None),
        *((f"rounds/{n}", f"labels of rounds/{n}", f"labels of rounds/{n - 1}", None) for n in (2, 3, 4)),
    ]


def test_filter_once_keeps_the_images_that_the_first_teacher_chose(asked) -> None:
    _, turns = asked(0.5, 0.6, 0.7, 0.8, mode="filter_once")
    first, second, third = (f"selection of rounds/{number}" for number in (1, 2, 3))
    assert [only for *_, only in turns.only("label")] == [None, first, second, third]
    assert [chosen for *_, chosen in turns.only("select")] == [None, first, second, third]


def test_the_control_is_the_best_students_recipe_on_labelled_images_alone(asked) -> None:
    outcome, turns = asked(0.5, 0.6, 0.8, 0.7, patience=2, control=True)
    assert turns.only("train")[-1] == ("control", 12, None, "rounds/0")
    (control,) = outcome.controls
    assert control.name == "control"
    assert control not in outcome.rounds
    assert outcome.best.name == "rounds/2"
    assert isinstance(control.recipe, Student)


def test_the_control_is_the_first_students_recipe_where_no_student_was_better(asked) -> None:
    assert asked(0.9, 0.5, 0.6, patience=2, control=True)[1].only("train")[-1] == ("control", 11, None, "rounds/0")


def test_the_control_is_trained_last_and_only_where_it_is_asked_for(asked) -> None:
    outcome, turns = asked(0.5, 0.6, 0.7, 0.8, 0.9)
    assert not outcome.controls
    assert "control" not in {place for place, *_ in turns.only("train")}
    assert asked(0.5, 0.6, 0.7, 0.8, 0.9, control=True)[1].asked[-1][:2] == ("train", "control")


def test_one_student_recipe_serves_every_round(config: Config) -> None:
    turns = Scripted([0.1, 0.4, 0.7, 0.9])
    changed = {"run": config.run.model_copy(update={"rounds": 3})}
    outcome = noisy_student(turns, config.model_copy(update=changed))
    assert [it.recipe for it in outcome.rounds] == [config.teacher, *[config.student] * 3]


def test_each_round_labels_then_selects_then_trains(asked) -> None:
    _, turns = asked(0.5, 0.6, 0.7)
    assert [it[0] for it in turns.asked[1:7]] == ["label", "select", "train"] * 2
