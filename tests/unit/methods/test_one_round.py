"""The methods with one student, and that on labels alone, over stages that only note what they are asked."""

from typing import Any

import pytest
from support.scripted import Scripted

from ray_ns.config import Config
from ray_ns.methods import METHODS
from ray_ns.methods.one_round import one_round
from ray_ns.methods.outcome import ONE_STUDENT, Outcome, is_control, title


@pytest.fixture
def carried(config: Config):
    """The outcome and the log of a run by a method, whose student has these validation scores."""

    def run(
        method: str, *validation: float, control: bool = True, beside: bool = True, **mpl: Any
    ) -> tuple[Outcome, Scripted]:
        values = config.model_dump(exclude_unset=True)
        values |= {"run": values["run"] | {"method": method}, "control": {"enabled": control}, "mpl": mpl}
        turns = Scripted(validation or (0.5, 0.6))
        turns.beside = beside
        chosen = Config.model_validate(values)
        return METHODS[chosen.run.method](turns, chosen), turns

    return run


def kinds(outcome: Outcome) -> list[tuple[str, str]]:
    return [(it.name, type(it.recipe).__name__) for it in outcome.all]


@pytest.mark.parametrize("method", sorted(ONE_STUDENT))
def test_the_first_teacher_chooses_what_the_one_student_sees(carried, method: str) -> None:
    _, turns = carried(method, control=False)
    assert turns.only("label") == [("rounds/1", "rounds/0", None)]
    assert [it[:2] for it in turns.only("select")] == [("rounds/1", "labels of rounds/1")]
    assert [(it[0], *it[2:]) for it in turns.only("train")] == [
        ("rounds/0", None, None),
        ("rounds/1", "selection of rounds/1", "rounds/0"),
    ]


def test_labels_alone_ask_for_no_pool(carried) -> None:
    outcome, turns = carried("supervised")
    assert turns.only("label") == turns.only("select") == []
    assert [(it[0], *it[2:]) for it in turns.only("train")] == [
        ("rounds/0", None, None),
        ("rounds/1", None, "rounds/0"),
    ]
    assert not outcome.controls


@pytest.mark.parametrize(
    ("method", "recipe"),
    [("pseudo_label", "Student"), ("uda", "UdaStudent"), ("meta_pseudo_labels", "MetaStudent")],
)
def test_the_recipe_says_which_method_it_is(carried, method: str, recipe: str) -> None:
    outcome, _ = carried(method)
    assert type(outcome.rounds[1].recipe).__name__ == recipe
    assert (outcome.rounds[1].recipe.targets == "hard") == (method == "pseudo_label")


def test_meta_pseudo_labels_have_every_control_beside_them(carried) -> None:
    outcome, turns = carried("meta_pseudo_labels")
    assert kinds(outcome)[2:] == [
        ("control", "Student"),
        ("control-no-feedback", "MetaStudent"),
        ("control-uda", "UdaStudent"),
        ("control-pseudo-label", "Student"),
    ]
    by_name = {it.name: it.recipe for it in outcome.controls}
    assert by_name["control-no-feedback"].mpl.feedback == "none"
    assert outcome.rounds[1].recipe.mpl.feedback == "difference"
    assert by_name["control-pseudo-label"].targets == "hard"
    selections = {name: selection for name, _, selection, _ in turns.only("train")}
    assert selections.pop("rounds/0") is None
    assert selections.pop("control") is None
    assert set(selections.values()) == {"selection of rounds/1"}


def test_the_reduced_variant_has_them_too(carried) -> None:
    outcome, _ = carried("meta_pseudo_labels", reduced=True)
    assert [kind for _, kind in kinds(outcome)[1:4]] == ["ReducedStudent", "Student", "ReducedStudent"]


@pytest.mark.parametrize("method", ["pseudo_label", "uda"])
def test_other_methods_have_the_fair_control(carried, method: str) -> None:
    assert [it.name for it in carried(method)[0].controls] == ["control"]
    assert not carried(method, control=False)[0].controls


@pytest.mark.parametrize("method", ["supervised", *sorted(ONE_STUDENT)])
def test_a_worse_student_does_not_take_the_teachers_place(carried, method: str) -> None:
    assert carried(method, 0.5, 0.9)[0].best.name == "rounds/1"
    outcome, turns = carried(method, 0.9, 0.1)
    assert outcome.best.name == "rounds/0"
    assert "student 1" in turns.told[-1]


def test_a_gain_over_each_control_is_in_the_report(carried) -> None:
    outcome, _ = carried("meta_pseudo_labels")
    assert set(outcome.as_json()["gain_points"]) == {
        *("over_teacher", "over_control", "over_control_no_feedback", "over_control_uda", "over_control_pseudo_label")
    }


@pytest.mark.parametrize("method", sorted(ONE_STUDENT))
@pytest.mark.parametrize("beside", [False, True], ids=["up to format 5", "now"])
def test_a_gain_over_a_control_is_the_students_also_where_the_teacher_is_kept(
    carried, method: str, beside: bool
) -> None:
    outcome, _ = carried(method, 0.9, 0.1, beside=beside)  # on test .1 and .9, each control 1
    gains = outcome.as_json()["gain_points"]
    assert outcome.best.name == "rounds/0"
    assert gains.pop("over_teacher") == 0
    assert set(gains.values()) == {-10.0 if beside else -90.0}


def test_methods_with_one_student_are_those_of_this_page() -> None:
    assert {name for name, method in METHODS.items() if method is one_round} == ONE_STUDENT


def test_what_the_turns_are_called(carried) -> None:
    assert [title(it.name) for it in carried("meta_pseudo_labels")[0].all] == [
        "0: teacher",
        "1: student",
        "control: labels only",
        "control: no feedback",
        "control: UDA alone",
        "control: plain pseudo labels",
    ]
    assert [is_control(it) for it in ("rounds/1", "rounds-3/control", "control-uda")] == [False, True, True]


def test_that_the_selection_decides_what_is_seen_is_told_where_labels_are_not_learned(carried) -> None:
    for method in ONE_STUDENT:
        told = [it for it in carried(method)[1].told if "select.threshold: 0" in it]
        assert len(told) == (method != "pseudo_label")


@pytest.mark.parametrize("reduced", [False, True])
@pytest.mark.parametrize("beside", [False, True], ids=["up to format 5", "now"])
@pytest.mark.parametrize("feedback", ["difference", "none"])
def test_no_control_repeats_the_student(carried, reduced: bool, beside: bool, feedback: str) -> None:
    outcome, _ = carried("meta_pseudo_labels", beside=beside, reduced=reduced, feedback=feedback)
    names = [it.name for it in outcome.controls]
    assert ("control-no-feedback" in names) == (feedback != "none" or not beside)
    assert len(names) == 4 - (feedback == "none" and beside)
    if beside:
        assert not [it for it in outcome.controls if it.recipe == outcome.rounds[1].recipe]
