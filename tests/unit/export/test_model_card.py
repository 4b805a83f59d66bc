"""The model card: what it claims, what it says in words, and that the hub's own reader takes it."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from ray_ns.config import Data
from ray_ns.evaluate.verdict import Verdict
from ray_ns.export.model_card import Card, Origin, Selected, Trained, card, front_matter

FIELDS = {"labelled": "/secret/l", "pool": "/secret/p", "classes": 3, "size": 48}


@pytest.fixture
def made() -> Callable[..., Card]:
    def with_(**changes: Any) -> Card:
        values = Card(
            rounds=[
                Trained("0: teacher", "resnet10t", 157_650, 0.914, 0.915),
                Trained("1: student", "resnet18", 692_354, 0.95, 0.947, 3000, 3600),
                Trained("2: student", "resnet18", 692_354, 0.956, 0.954, 3300, 3600),
            ],
            best=2,
            controls=[Trained("control: labels only", "resnet18", 692_354, 0.91, 0.912)],
            method="noisy_student",
            over_teacher=Verdict(1000, 3.9, 2.4, 5.5, (50, 11), 0.00001),
            over_control=Verdict(1000, 4.2, 2.6, 5.9, (52, 10), 0.00001),
            data=Data.model_validate(FIELDS),
            names=["cat", "dog", "owl"],
            images={"validation": 500, "test": 1000},
            unreadable={"validation": 0, "test": 2},
            calibration=0.0213,
            origins={
                "labelled": Origin(50, "ab" * 32, "cd" * 32),
                "validation": Origin(500, "12" * 32, "34" * 32),
                "test": Origin(1000, "56" * 32, None),
                "pool": Origin(None, "ef" * 32, None),
            },
            quarantine={"truncated": 1200, "empty": 3},
            left_out={"in_test": 7},
            selected=Selected("paper", (0.3, 0.3), (1200, 1200)),
            facts={"Seed": 3, "format of the run": 2},
        )
        return replace(values, **changes)

    return with_


def test_the_hubs_reader_finds_the_figures(made: Callable[..., Card]) -> None:
    read = ModelCard(card(made()))
    assert (read.data.library_name, read.data.pipeline_tag) == ("timm", "image-classification")
    assert read.data.license is None
    assert {"timm", "noisy-student"} <= set(read.data.tags)
    assert read.data.eval_results is not None
    top1, error = read.data.eval_results
    assert (top1.metric_type, top1.metric_value, top1.task_type) == ("accuracy", 0.954, "image-classification")
    assert (error.metric_type, error.metric_value) == ("expected_calibration_error", 0.0213)
    assert read.text.startswith("\n# resnet18, Noisy Student\n")


def test_the_reader_does_not_refuse_what_it_read(made: Callable[..., Card]) -> None:
    """``RepoCard`` parses ``model-index`` strictly only when told to raise."""
    ModelCard(card(made()), ignore_metadata_errors=False)


def row(text: str, title: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith("| ") and title in line]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_table_has_a_row_per_network_with_wilsons_interval(made: Callable[..., Card]) -> None:
    text = card(made())
    assert row(text, "0: teacher") == ["0: teacher", "resnet10t", "157,650", "-", "-", "91.4", "91.5", "89.6 to 93.1"]
    best = ["**2: student (this network)**", "resnet18", "692,354", "3,300", "3,600", "95.6", "95.4", "93.9 to 96.5"]
    assert row(text, "2: student") == best
    assert row(text, "control")[5:] == ["91.0", "91.2", "89.3 to 92.8"]


def test_a_difference_that_the_test_set_can_tell_has_its_interval(made: Callable[..., Card]) -> None:
    text = card(made())
    assert re.search(r"Against the teacher.*: \+3\.9 points on 1,000 images \(95 %: \+2\.4 to \+5\.5\): better\.", text)
    assert re.search(r"Against the control: \+4\.2 points on 1,000 images \(95 %: \+2\.6 to \+5\.9\): better\.", text)
    assert "not significant" not in text
    assert "a true difference comes from the pool" in text


def test_a_difference_that_it_cannot_tell_is_said_in_words(made: Callable[..., Card]) -> None:
    found = Verdict(30, 3.3, -9.6, 16.7, (2, 1), 1.0)
    text = card(made(images={"validation": 20, "test": 30}, over_teacher=found, over_control=found))
    assert text.count("less than 20.0 points does not show on so few. **This is not significant**") == 2
    assert "one image is 3.33 points" in text


def test_of_a_difference_that_only_its_interval_tells_the_card_says_what_speaks_against_it(
    made: Callable[..., Card],
) -> None:
    found = Verdict(100, 5.0, 0.2, 11.2, (5, 0), 0.0625)
    text = card(made(over_teacher=found, over_control=found))
    assert text.count("cannot tell, less than 6.2 points does not show") == 2
    assert text.count("**This is not significant**: McNemar's exact p is 0.062.") == 2


def test_the_teacher_as_the_best_is_said_plainly(made: Callable[..., Card]) -> None:
    text = card(made(best=0, over_teacher=None, selected=None))
    assert "**This network is the teacher.** No student was better" in text
    assert "Against the teacher" not in text
    assert "The control is the first student's" in text


@pytest.mark.parametrize("best", [0, 2])
def test_of_a_teacher_that_was_given_nothing_is_claimed(made: Callable[..., Card], best: int) -> None:
    rounds = made().rounds
    told = made(rounds=[replace(rounds[0], title="0: teacher, given", given=True), *rounds[1:]], best=best)
    text = card(replace(told, over_teacher=told.over_teacher if best else None))
    assert "a teacher that was given labels a pool" in text
    assert "labelled images alone" not in text.partition("Against the control")[0]
    assert "Nothing here says what it has learned from" in text
    assert ("so it is as it was given" in text) == (best == 0)
    assert ("Against the teacher, which was given: " in text) == (best > 0)
    assert "The teacher was given" not in card(made())


@pytest.mark.parametrize("best", [0, 1])
def test_of_a_method_with_one_student_each_control_is_compared_with_that_one(
    made: Callable[..., Card], best: int
) -> None:
    silent = Verdict(1000, 0.3, -1.0, 1.6, (22, 19), 0.75)
    told = made(method="meta_pseudo_labels", rounds=made().rounds[:2], best=best, selected=None)
    text = card(replace(told, over_teacher=None, over_others={"control: no feedback": silent}))
    who = "Against" if best else "Student 1, not this network, against"
    assert f"- {who} the control: {told.over_control.in_words}. The control is " in text
    assert f'- {who} the control "no feedback": {silent.in_words}. **This is not significant**' in text
    assert ("The control is the student's architecture, recipe, steps and noise" in text) == (best == 0)
    assert "Student 1, not this" not in card(made(best=0, over_teacher=None, selected=None))


def test_without_a_control_its_absence_is_said(made: Callable[..., Card]) -> None:
    assert "No control was trained" in card(made(controls=[], over_control=None))


def test_the_lineage_is_told(made: Callable[..., Card]) -> None:
    text = card(made())
    assert row(text, "| labelled") == ["labelled", "50", "`abababababababab`", "`cdcdcdcdcdcdcdcd`"]
    assert row(text, "| pool |") == ["pool", "not counted", "`efefefefefefefef`", "not read as a whole"]
    assert "1,203 images could not be read (empty 3, truncated 1,200)" in text
    assert "7 images were left out because they are labelled, validation or test images too (in\\_test 7)." in text
    assert "threshold 0.3; rule `paper`; after the balance, 1,200 images of each class that has any" in text
    assert "- Seed: 3\n- format of the run: 2" in text
    assert "2 unreadable test images count as wrong" in text
    assert "Expected calibration error on test: 2.1 points" in text


def test_thresholds_and_counts_that_differ_by_class_are_told_as_a_range(made: Callable[..., Card]) -> None:
    text = card(made(selected=Selected("official", (0.3, 0.55), (90, 110))))
    assert "threshold 0.3 to 0.55, by class; rule `official`; after the balance, 90 to 110 images of a class" in text


@pytest.mark.parametrize(("fit", "said"), [("squash", "the whole image is resized"), ("crop", "7/8 of the short side")])
def test_how_an_image_is_fed_is_told(made: Callable[..., Card], fit: str, said: str) -> None:
    text = card(made(data=Data.model_validate({**FIELDS, "fit": fit})))
    assert said in text
    assert "48 x 48 pixels, bilinear" in text


def test_grey_networks_are_not_offered_to_the_pipeline(made: Callable[..., Card]) -> None:
    grey = Data.model_validate({**FIELDS, "channels": 1, "mean": [0.5], "std": [0.2]})
    text = card(made(data=grey))
    assert "from transformers import" not in text
    assert '.convert("L")' in text
    assert "from transformers import" in card(made())


def test_no_path_of_the_machine_is_in_it(made: Callable[..., Card]) -> None:
    assert "/secret" not in card(made())


def test_names_of_others_do_nothing_in_it(made: Callable[..., Card]) -> None:
    names = [
        "a|b",
        "<script>alert(1)</script>",
        "line\nend",
        "`code` **bold**",
        "[x](http://y)",
        "\u202eback",
        "\ud800",
    ]
    text = card(made(names=names, data=Data.model_validate({**FIELDS, "classes": len(names)})))
    (line,) = [line for line in text.splitlines() if line.startswith("Classes, in the order")]
    for harmful in ("<script", "a|b", "**bold**", "[x](", "\u202e", "\ud800"):
        assert harmful not in line.replace("\\|", "").replace("\\*", "").replace("\\[", "").replace("\\]", ""), harmful
    text.encode()


def test_many_names_are_left_to_the_file(made: Callable[..., Card]) -> None:
    text = card(made(names=[f"class {it}" for it in range(1000)]))
    assert "class 17" not in text
    assert "The names of the 1,000 classes" in text
    assert "have no names" in card(made(names=None))


def test_the_front_matter_is_plain_yaml(made: Callable[..., Card]) -> None:
    text = card(made())
    assert yaml.safe_load(text.split("---\n")[1]) == front_matter(made())


def test_a_network_that_nobody_measured_has_no_figures_and_says_so(made: Callable[..., Card]) -> None:
    blind = replace(
        made(),
        rounds=[replace(it, validation=None, test=None) for it in made().rounds],
        controls=[replace(made().rounds[0], validation=None, test=None, title="control: labels only")],
        **{"over_teacher": None, "over_control": None, "calibration": None, "why": "student 2 becomes the teacher"},
        **{"images": {"validation": 0, "test": 0}, "unreadable": {"validation": 0, "test": 0}},
    )
    assert "model-index" not in front_matter(blind)
    text = card(blind)
    ModelCard(text, ignore_metadata_errors=False)
    assert "**Not measured on test**" in text
    assert "Why this network: student 2 becomes the teacher." in text
    assert row(text, "control")[5:] == ["not measured", "not measured", "-"]
    assert "No control was trained" not in text


def test_top5_stands_beside_top1(made: Callable[..., Card]) -> None:
    metrics = front_matter(made(top5=0.998))["model-index"][0]["results"][0]["metrics"]
    assert [it["name"] for it in metrics] == ["Top-1", "Top-5", "ECE, 15 bins"]
    assert "- Top-5 on test: 99.8." in card(made(top5=0.998))
