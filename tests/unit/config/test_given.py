"""A teacher that is a network one has instead of a recipe: what may be said of it, and how a run writes it down."""

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from support.settings import MINIMAL, refusal

from ray_ns.config import Config, GivenTeacher, Settings, Training
from ray_ns.config.json_schema import json_schema
from ray_ns.config.read import as_overrides, load, with_classes
from ray_ns.config.show import schema_as_yaml
from ray_ns.errors import InputError

HASH = "0123456789abcdef" * 4
NAME = "tf_efficientnet_b0.ns_jft_in1k"
RECIPE = MINIMAL["teacher"]


def given(**teacher: Any) -> dict[str, Any]:
    return {**MINIMAL, "teacher": teacher}


@pytest.mark.parametrize("place", ["my-net/", "~/my-net", "./x", "s3://bucket/run", NAME, "2024-11-01", "null-net"])
def test_a_place_is_a_path_from_the_root_a_url_or_a_name(tmp_path: Path, monkeypatch: Any, place: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(MINIMAL))
    wanted = {
        "my-net/": f"{tmp_path}/my-net",
        "~/my-net": "/home/me/my-net",
        "./x": f"{tmp_path}/x",
    }.get(place, place)
    for config in (load({**MINIMAL, "teacher": {"from": place}}), load("x.yaml", [f"teacher={{from: {place}}}"])):
        assert isinstance(config.teacher, GivenTeacher)
        assert config.teacher.place == wanted


def test_a_folder_of_that_name_in_the_working_directory_is_meant(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / NAME).mkdir()
    config = load({**MINIMAL, "teacher": {"from": NAME}, "label": {"teachers": ["round", NAME, "resnet18.a1_in1k"]}})
    assert isinstance(config.teacher, GivenTeacher)
    assert config.teacher.place == str(tmp_path / NAME)
    assert config.label.others == [str(tmp_path / NAME), "resnet18.a1_in1k"]


@pytest.mark.parametrize(
    ("teacher", "said"),
    [
        ({"from": ""}, "teacher.from: found ''"),
        ({"from": "a\0b"}, "teacher.from: found"),
        ({"from": None}, "teacher.from: found "),
        ({"from": "x", "sha256": HASH[:-1]}, "teacher.sha256: found "),
        ({"from": "x", "sha25": HASH}, "teacher.sha25: unknown key, did you mean sha256?"),
        ({"from": "x", "steps": 3, "noise": {}}, "not trained; leave steps, noise out"),
        ({**RECIPE, "form": "x"}, "teacher.form: unknown key, did you mean from?"),
        ({"sha256": HASH}, "teacher.model: missing"),
    ],
)
def test_what_cannot_be_is_refused_by_name(teacher: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        load(given(**teacher))
    assert said in str(caught.value)


def test_on_the_command_line_it_takes_the_place_of_a_whole_recipe_and_of_another_network(file: Path) -> None:
    wanted = GivenTeacher.model_validate({"from": "x"})
    for source in (file, MINIMAL, given(**{"from": "y", "sha256": HASH})):
        assert load(source, ["teacher.from=x"]).teacher == load(source, ["teacher={from: x}"]).teacher == wanted
    assert load(file, as_overrides({"teacher": {"from": "x", "sha256": HASH}})).teacher.sha256 == HASH  # type: ignore[union-attr]
    for words in (["teacher.from=x", "teacher.steps=3"], ["teacher.steps=3", "teacher.from=x"]):
        assert "teacher: from gives a network, which is not trained; leave steps out" in refusal(file, *words)


def test_a_run_names_its_hash_and_not_where_it_lies() -> None:
    assert Settings().of(load(given(**{"from": "x"})))["teacher"] == {}
    assert Settings().of(load(given(**{"from": "x", "sha256": HASH})))["teacher"] == {"sha256": HASH}


def test_it_differs_from_a_recipe_in_each_direction_and_not_from_itself() -> None:
    trained, own = load(MINIMAL), load(given(**{"from": "x", "sha256": HASH}))
    record, settings = Settings().of(own), Settings()
    assert settings.differences(record, own) == []
    assert settings.differences(record, load(given(**{"from": "elsewhere", "sha256": HASH}))) == []
    other = settings.differences(record, load(given(**{"from": "x", "sha256": HASH[::-1]})))
    assert other == [f"teacher.sha256: {HASH!r} -> {HASH[::-1]!r}"]
    there = settings.differences(Settings().of(trained), own)
    assert f"teacher.sha256: None -> {HASH!r}" in there
    assert any(row.startswith("teacher.model: ") for row in there)
    back = settings.differences(record, trained)
    assert f"teacher.sha256: {HASH!r} -> None" in back
    assert not [row for row in (*there, *back) if "no such setting" in row]


def test_a_record_of_it_is_read_back_with_its_defaults() -> None:
    assert Settings().with_defaults({"teacher": {}}, Config)["teacher"] == {"sha256": None}
    assert Settings().with_defaults({"teacher": RECIPE}, Config)["teacher"]["optimizer"]["name"] == "sgd"
    record = {"format": 1, "config": {"run": {}, "data": {}, "teacher": {"sha256": HASH}, "student": RECIPE}}
    found = Settings.of_run(record, Config)
    assert found.of(load(given(**{"from": "x"})))["teacher"] == {"sha256": None}, "as a run of format 1 names it"


def test_it_has_no_recipe_and_stays_what_it_is_when_classes_become_known() -> None:
    config = with_classes(load(given(**{"from": NAME, "sha256": HASH})), 7)
    assert config.teacher == GivenTeacher.model_validate({"from": NAME, "sha256": HASH})
    assert list(config.recipes()) == ["student"]
    assert list(load(MINIMAL).recipes()) == ["teacher", "student"]
    assert isinstance(load(MINIMAL).teacher, Training)


@pytest.mark.parametrize(
    ("run", "round_", "wanted"),
    [
        ({}, 3, [2]),
        ({"patience": 2}, 3, [0, 1, 2]),
        ({"patience": 2, "promote": "always"}, 3, [2]),
        ({"patience": 2}, 1, [0]),
    ],
)
def test_which_rounds_may_teach_one(run: dict[str, Any], round_: int, wanted: list[int]) -> None:
    assert [*load({**MINIMAL, "run": {**MINIMAL["run"], "rounds": 3, **run}}).may_teach(round_)] == wanted


@pytest.mark.parametrize(
    ("teacher", "wrong"),
    [
        ({"from": "x"}, []),
        ({"from": "x", "sha256": None}, []),
        ({"from": "x", "sha256": HASH}, []),
        ({"from": ""}, ["teacher.from"]),
        ({"from": "x", "sha256": "0"}, ["teacher.sha256"]),
        ({"from": "x", "steps": 3}, ["teacher"]),
        ({"steps": 0, **{name: RECIPE[name] for name in ("model", "batch")}}, ["teacher.steps"]),
    ],
)
def test_the_schema_takes_the_one_or_the_other(teacher: dict[str, Any], wrong: list[str]) -> None:
    faults = jsonschema.Draft202012Validator(json_schema()).iter_errors(given(**teacher))
    assert [".".join(map(str, it.absolute_path)) for it in faults] == wrong


def test_the_printed_schema_shows_it_beside_the_recipe() -> None:
    text = schema_as_yaml()
    shown = text.partition("# or teacher:")[2].partition("student:")[0]
    assert "#   from: # required" in shown
    assert "#   sha256: null" in shown
    assert str(GivenTeacher.__doc__) in shown
    assert "does not change the result" in shown.partition("from:")[0]
