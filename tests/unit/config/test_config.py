"""The config as a whole: what is missing or impossible beside another setting is refused; a recipe per round."""

import copy
from pathlib import Path

import pytest
import yaml
from support.settings import MINIMAL, REQUIRED, TWO, at, refusal

from ray_ns.config.read import load


@pytest.mark.parametrize("section", ["run", "data", "teacher", "student"])
def test_a_missing_section_is_named(tmp_path: Path, section: str) -> None:
    values = {name: inner for name, inner in MINIMAL.items() if name != section}
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(values))
    assert f"{section}: missing, and it has no default" in refusal(tmp_path / "x.yaml")


@pytest.mark.parametrize("setting", sorted(REQUIRED))
def test_a_missing_setting_is_named(tmp_path: Path, setting: str) -> None:
    values = copy.deepcopy(MINIMAL)
    del at(values, setting.rpartition(".")[0])[setting.rpartition(".")[2]]
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(values))
    assert f"{setting}: missing, and it has no default" in refusal(tmp_path / "x.yaml")


@pytest.mark.parametrize(
    ("overrides", "wanted"),
    [
        (["label.keep=hard"], ["student.targets", "soft", "label.keep", "hard"]),
        (["cluster.train_workers=4"], ["teacher.batch = 6", "cluster.train_workers = 4", "6 = 4 x 1 + 2); 3 or 6"]),
        (["student.batch=7", "cluster.train_workers=2"], ["student.batch = 7", "7 = 2 x 3 + 1"]),
        (["cluster.train_workers=[1, 4]"], ["teacher.batch = 6", "cluster.train_workers = 4", "6 = 4 x 1 + 2"]),
        (
            ["teacher.batch=2048", "student.batch=2048", "cluster.train_workers=[72, 80]"],
            ["2048 = 72 x 28 + 32); 64 or 128 would do", "[1, 2]"],
        ),
        (["cluster.train_workers=[1, 2]", 'cluster.train_on={"a": "b"}'], ["train_workers = [1, 2]", "not by labels"]),
        (["cluster.train_workers=[3, 2]"], ["cluster", "train_workers = [3, 2]", "[least, most]"]),
        (["cluster.bn_group=2"], ["cluster.bn_group = 2", "cluster.train_workers = 1", "a multiple of 2"]),
        (["cluster.bn_group=2", "cluster.train_workers=3"], ["cluster.bn_group = 2", "cluster.train_workers = 3"]),
        (["cluster.bn_group=2", "cluster.train_workers=[2, 3]"], ["cluster.bn_group = 2", "cluster.train_workers = 3"]),
        (["data.channels=1"], ["data", "mean has 3 values", "channels is 1"]),
        (["data.mean=[0.5]"], ["data", "mean has 1 values", "channels is 3"]),
        (["data.std=[0.5, 0.5]"], ["data", "std has 2 values", "channels is 3"]),
    ],
)
def test_an_impossible_combination_is_refused_with_both_sides(
    file: Path, overrides: list[str], wanted: list[str]
) -> None:
    message = refusal(file, *overrides)
    for words in wanted:
        assert words in message


@pytest.mark.parametrize(
    "overrides",
    [
        ["label.keep=hard", "student.targets=hard"],
        ["label.keep=full"],
        ["cluster.train_workers=3"],
        ["cluster.train_workers=[1, 3]"],
        ["cluster.train_workers=6", "cluster.bn_group=3"],
        ["cluster.train_workers=3", "cluster.bn_group=3"],
        ["data.channels=1", "data.mean=[0.5]", "data.std=[0.5]"],
    ],
)
def test_the_possible_ones_beside_them_are_accepted(file: Path, overrides: list[str]) -> None:
    load(file, overrides)


def test_all_that_is_wrong_is_said_at_once(file: Path) -> None:
    message = refusal(file, "run.rounds=0", "select.threshold=2", "teacher.step=3")
    for path in ("run.rounds", "select.threshold", "teacher.step"):
        assert f"{path}: " in message


def test_students_are_listed_by_round_and_the_last_one_repeats(file: Path) -> None:
    config = load(file, [TWO, "run.rounds=3"])
    assert [student.steps for student in config.students] == [4, 5, 5]
    assert list(config.recipes()) == ["teacher", "student.0", "student.1"]
    assert [student.steps for student in load(file).students] == [4, 4]


def test_a_recipe_of_a_list_is_named_by_its_place(file: Path) -> None:
    assert "student.1.ratio: found 0" in refusal(file, TWO, "student.1.ratio=0")
    assert "student.1.rato: unknown key, did you mean ratio?" in refusal(file, TWO, "student.1.rato=2")
    assert "0 .. 1" in refusal(file, TWO, "student.2.ratio=3")
    assert "whole recipe" in refusal(file, TWO, "student.1=3")
    assert "student lists 2 recipes, run.rounds is 1" in refusal(file, TWO, "run.rounds=1")
    assert "student" in refusal(file, "student=[]")


def test_a_student_begins_with_its_teachers_weights_only_where_they_fit(file: Path) -> None:
    load(file, ["student.init=teacher"])
    assert "round 1: its teacher may be resnet10t" in refusal(
        file, "student.init=teacher", "student.model.name=resnet18"
    )
    # with the default patience a student's teacher is always the round before
    load(file, [TWO, "run.rounds=3", "student.0.init=teacher", "teacher.model.name=resnet10t"])
    last = [TWO, "run.rounds=3", "student.1.init=teacher"]
    assert "round 2: its teacher may be resnet10t" in refusal(file, *last)
    same = [*last, "student.0.model.name=resnet18"]
    load(file, same)
    assert "round 2: its teacher may be resnet10t" in refusal(file, *same, "run.patience=2")
