"""The settings that decide the result: how a run writes them down, and in which a config differs from a run."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field
from support.settings import DEFAULTS, DEMO, EARLIER, HOW, MINIMAL, SETTINGS, TWO, leaves

from ray_ns.config import Config, Data, Model, Noise, Settings, Training
from ray_ns.config.prediction import Evaluation, Prediction
from ray_ns.config.read import load
from ray_ns.config.results import changes, results_of
from ray_ns.config.schema import Section, earlier, earlier_defaults, how, sections_of
from ray_ns.seals import digest
from ray_ns.store import layout


def record(config: Section, format: int = 2) -> dict[str, Any]:
    """``run.json`` of a run of ``config``, read back. Format 1 named every setting."""
    named = results_of(config) if format == 1 else Settings().of(config)
    return json.loads(json.dumps({"format": format, "config": named}))


class LaterData(Data):
    """``data`` as a later version may have it: with one setting more, and a section more."""

    class Frames(Section):
        every: int = Field(1, description="a setting in a new section")
        folder: str = how("-", "says how")

    blur: float = Field(0.0, description="a new setting")
    frames: Frames = Field(Frames(), description="a new section")


class Later(Config):
    data: LaterData


def later(**data: Any) -> Later:
    return Later.model_validate({**MINIMAL, "data": {**MINIMAL["data"], **data}})


def _sections() -> list[type[Any]]:
    """Every section of a config."""
    found: list[type[Any]] = [Config]
    for kind in found:
        inner = (it for field in kind.model_fields.values() for it in sections_of(field))
        found += [it for it in dict.fromkeys(inner) if it not in found]
    return found


# What decides the result.


def test_what_does_not_decide_the_result_is_these_and_nothing_else(file: Path) -> None:
    kept = [path for path, _ in leaves(results_of(load(file)))]
    assert sorted(kept) == sorted(set(SETTINGS) - HOW)


def test_results_are_json_and_come_back_the_same(file: Path) -> None:
    for path in (file, DEMO):
        results = results_of(load(path))
        assert json.loads(json.dumps(results, allow_nan=False)) == results


def test_a_default_that_decides_the_result_never_changes() -> None:
    # Runs do not name a setting at its default: another default would give them another value without a word. Where
    # one must change, a new format names the old one in the runs of the formats before.
    found: dict[str, dict[str, Any]] = {}
    for kind in _sections():
        for name, field in kind.model_fields.items():
            if not sections_of(field) and not field.is_required() and field.json_schema_extra != {"result": False}:
                found.setdefault(kind.__name__, {})[name] = field.get_default()
    own = found["Student"].keys() - found["Training"].keys()
    assert {name: found["Student"][name] for name in found["Training"]} == found["Training"]
    found["Student"] = {name: found["Student"][name] for name in own}
    assert found == DEFAULTS


def test_the_defaults_of_earlier_formats_never_change() -> None:
    found: dict[str, dict[str, Any]] = {}
    for kind in (*_sections(), Prediction, Evaluation):
        for name, field in kind.model_fields.items():
            if earlier_defaults(field):
                found.setdefault(kind.__name__, {})[name] = earlier_defaults(field)
    del found["Student"]  # which has them as a training
    assert found == EARLIER


# What a run names.


def test_a_run_names_what_differs_from_the_default_and_what_has_none(file: Path) -> None:
    model = {"name": "resnet10t"}
    recipe = {"model": model, "steps": 4, "batch": 6}
    assert Settings().of(load(file)) == {"run": {}, "data": {}, "teacher": recipe, "student": recipe}
    set_ = ["data.size=32", "select.quotas={3: 5}", "student.optimizer.lr=0.5", "teacher.finetune.optimizer.eps=0.1"]
    assert Settings().of(load(file, set_)) == {
        "run": {},
        "data": {"size": 32},
        "select": {"quotas": {"3": 5}},
        "teacher": {**recipe, "finetune": {"optimizer": {"eps": 0.1}}},
        "student": {**recipe, "optimizer": {"lr": 0.5}},
    }


@pytest.mark.parametrize("written", [["data.size=224"], ["select={}"], ["teacher.noise={flip: true}"], ["run.seed=0"]])
def test_a_default_that_is_written_out_is_not_named(file: Path, written: list[str]) -> None:
    assert Settings().of(load(file, written)) == Settings().of(load(file))


def test_no_two_values_of_a_setting_are_written_alike() -> None:
    class Inner(Section):
        rate: float = 1.0

    class Outer(Section):
        maybe: Inner | None = None
        other: Inner = Inner(rate=0.5)

    one = Settings()
    assert [one.of(it) for it in (Outer(), Outer(maybe=Inner()), Outer(maybe=Inner(rate=2.0)))] == [
        *({}, {"maybe": {}}, {"maybe": {"rate": 2.0}})
    ]
    assert [one.of(Outer(other=Inner(rate=it))) for it in (0.5, 1.0, 2.0)] == [
        *({}, {"other": {}}, {"other": {"rate": 2.0}})
    ]


def test_a_setting_without_a_default_is_named_where_it_is_null_too() -> None:
    class Sized(Section):
        size: int | None = Field(..., description="null: as it is")

    assert Settings().of(Sized(size=None)) == {"size": None}


def test_a_run_of_format_2_names_no_more_where_it_goes_on_than_where_it_began(file: Path) -> None:
    config = load(file, ["teacher.noise.flip=false", "select.threshold=0.5"])
    settings = Settings.of_run(record(config, 2), Config)
    assert settings.always == Settings().always == {}
    assert settings.of(settings.completed(config)) == Settings().of(config)


def test_a_run_of_format_1_names_all_that_it_named_when_it_began(file: Path) -> None:
    for overrides in ([], [TWO, "teacher.finetune.steps=3"]):
        config = load(file, overrides)
        settings = Settings.of_run(record(config, 1), Config)
        assert settings.of(config) == results_of(config)
        assert settings.of(config.select) == results_of(config.select)
        for tuning in (config.teacher.tuning, config.students[0].tuning):
            assert tuning is None or settings.of(tuning) == results_of(tuning)
        another = config.select.model_copy(update={"threshold": 0.7})
        assert settings.of(another) == results_of(another)


def test_a_run_of_format_1_that_did_not_know_a_setting_yet_does_not_name_it(file: Path) -> None:
    config = load(file)
    old = record(config, 1)
    for recipe in ("teacher", "student"):
        del old["config"][recipe]["noise"]["cutout"]
    settings = Settings.of_run(old, Config)
    assert settings.of(config) == old["config"]
    assert Settings().differences(old["config"], config) == []


# A default that has changed.


class Milder(Noise):
    """``noise`` as a later version may have it: with another default."""

    magnitude: float = earlier(5.0, {2: 7.0, 3: 9.0}, "its default was 7, then 9")


class MilderRecipe(Training):
    noise: Milder = Field(Milder(), description="input noise")


def recipe(**values: Any) -> MilderRecipe:
    return MilderRecipe.model_validate({"model": {"name": "resnet10t"}, "steps": 4, "batch": 6, **values})


@pytest.mark.parametrize(("format", "default"), [(1, 7.0), (2, 7.0), (3, 9.0), (4, 5.0), (None, 5.0)])
@pytest.mark.parametrize("values", [{}, {"noise": {}}, {"noise": {"flip": True}}])
def test_a_run_goes_on_with_the_default_of_its_own_format(
    format: int | None, default: float, values: dict[str, Any]
) -> None:
    settings = Settings(format=format)
    completed = settings.completed(recipe(**values))
    assert completed.noise.magnitude == default
    assert "magnitude" not in settings.of(completed).get("noise", {})
    assert settings.differences({"model": {"name": "resnet10t"}, "steps": 4, "batch": 6}, completed) == []
    assert settings.completed(completed) == completed
    for own in (5.0, 7.0, 9.0):  # a value that is set stays, and is named unless it is the default
        chosen = settings.completed(recipe(noise={"magnitude": own}))
        assert chosen.noise.magnitude == own
        assert ("magnitude" in settings.of(chosen).get("noise", {})) == (own != default)
        rows = settings.differences({}, chosen.noise)
        assert rows == ([] if own == default else [f"magnitude: {default} -> {own}"])


@pytest.mark.parametrize(("format", "default"), [(1, 7.0), (3, 9.0), (4, 5.0)])
def test_a_record_is_filled_with_the_defaults_of_its_own_format(format: int, default: float) -> None:
    settings = Settings(format=format)
    assert settings.with_defaults({}, Milder)["magnitude"] == default
    assert settings.with_defaults({"model": {"name": "x"}, "steps": 1}, MilderRecipe)["noise"]["magnitude"] == default


def test_a_default_reaches_into_each_recipe_of_a_list(file: Path) -> None:
    config = load(file, [TWO, "student.0.ema_warmup=tensorflow"])
    completed = Settings(format=3).completed(config)
    assert [it.ema_warmup for it in (completed.teacher, *completed.students)] == ["timm", "tensorflow", "timm"]
    assert [it.noise.probability for it in completed.students] == [0.5, 0.5]


@pytest.mark.parametrize("format", layout.READ)
@pytest.mark.parametrize("zero", [[], ["student.model.drop_path=0", "student.model.dropout=0.0"]])
def test_a_rate_of_0_is_timms_own_in_runs_that_began_so_and_changes_no_digest_of_theirs(
    file: Path, format: int, zero: list[str]
) -> None:
    config = load(file, zero)
    begun = record(config, format)
    for recipe in ("teacher", "student"):  # of an earlier version
        begun["config"][recipe]["model"].pop("own_rates", None)
    settings = Settings.of_run(begun, Config)
    completed = settings.completed(config)
    early = format < layout.BESIDE
    assert [it.model.own_rates for it in (completed.teacher, *completed.students)] == [early] * 3
    assert [it.model.rates == {} for it in completed.students] == [early] * 2
    assert [row for row in settings.differences(begun["config"], completed) if ".model" in row] == []
    assert digest(settings.of(completed.students[0].model)) == digest(begun["config"]["student"]["model"])
    assert earlier_defaults(Model.model_fields["own_rates"]) == {layout.BESIDE - 1: True}


# A setting that is new.


@pytest.mark.parametrize("format", [1, 2])
def test_a_new_setting_at_its_default_refuses_no_run_and_changes_no_digest(file: Path, format: int) -> None:
    config = load(file)
    begun = record(config, format)
    before, after = Settings.of_run(begun, Config), Settings.of_run(begun, Later)
    assert Settings().differences(begun["config"], later()) == []
    assert digest(after.of(later().data)) == digest(before.of(config.data))
    assert after.of(after.completed(later()) if format > 1 else later()) == begun["config"]


@pytest.mark.parametrize("format", [1, 2])
def test_a_new_setting_with_another_value_is_refused_by_name_and_changes_the_digest(file: Path, format: int) -> None:
    begun = record(load(file), format)
    settings = Settings.of_run(begun, Later)
    for value, row in (
        ({"blur": 0.5}, "data.blur: 0.0 -> 0.5"),
        ({"frames": {"every": 3}}, "data.frames.every: 1 -> 3"),
    ):
        assert Settings().differences(begun["config"], later(**value)) == [row]
        assert digest(settings.of(later(**value).data)) != digest(settings.of(later().data))
    assert Settings().differences(begun["config"], later(frames={"folder": "x"})) == []


def test_a_new_setting_goes_on_as_the_run_began_with_it() -> None:
    begun = record(later(blur=0.5))
    assert begun["config"]["data"] == {"blur": 0.5}
    assert Settings().differences(begun["config"], later(blur=0.5)) == []
    assert Settings().differences(begun["config"], later()) == ["data.blur: 0.5 -> 0.0"]


def test_a_setting_that_this_version_does_not_know_is_refused_by_name(file: Path) -> None:
    begun = record(later(blur=0.5, frames={"every": 2}))
    assert Settings().differences(begun["config"], load(file)) == [
        "data.blur: 0.5 -> no such setting in this version",
        "data.frames: {'every': 2} -> no such setting in this version",
    ]
    listed = record(load(file, [TWO]))
    listed["config"]["student"][1]["novel"] = 3
    assert Settings().differences(listed["config"], load(file, [TWO])) == [
        "student.1.novel: 3 -> no such setting in this version"
    ]


def test_a_setting_that_came_to_say_how_the_work_is_done_makes_no_difference(file: Path) -> None:
    begun = record(load(file), 1)
    begun["config"]["label"]["actors"] = 7
    assert Settings().differences(begun["config"], load(file)) == []


# Differences.


@pytest.mark.parametrize(
    ("old", "new", "rows"),
    [
        ({}, {}, []),
        ({"a": 1}, {"a": 1.0}, []),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}, ["a.c: 2 -> 3"]),
        ({"b": 1, "a": 1}, {"a": 2, "b": 2}, ["a: 1 -> 2", "b: 1 -> 2"]),
        ({"a": 1}, {}, ["a: 1 -> None"]),
        ({}, {"a": {"b": 1}}, ["a: None -> {'b': 1}"]),
        ({"a": [1, 2]}, {"a": [2, 1]}, ["a: [1, 2] -> [2, 1]"]),
        ({"a": "1"}, {"a": 1}, ["a: '1' -> 1"]),
        ({"a": {"x": 1}}, {"a": {"y": 1}}, ["a.x: 1 -> None", "a.y: None -> 1"]),
    ],
)
def test_changes_are_told_by_dotted_path(old: Any, new: Any, rows: list[str]) -> None:
    assert changes(old, new) == rows


@pytest.mark.parametrize("format", [1, 2])
@pytest.mark.parametrize("setting", ["run.seed", "student.optimizer.lr", "select.threshold", "cluster.train_workers"])
def test_a_setting_that_decides_the_result_makes_a_difference_there_and_back(
    file: Path, setting: str, format: int
) -> None:
    new = {"run.seed": "5", "student.optimizer.lr": "5e-1", "select.threshold": "0.5", "cluster.train_workers": "2"}
    plain, changed = load(file), load(file, [f"{setting}={new[setting]}"])
    (row,) = Settings().differences(record(plain, format)["config"], changed)
    (back,) = Settings().differences(record(changed, format)["config"], plain)
    old, value = row.removeprefix(f"{setting}: ").split(" -> ")
    assert back == f"{setting}: {value} -> {old}"
    assert Settings().differences(record(changed, format)["config"], changed) == []


def test_settings_that_say_how_make_none(file: Path) -> None:
    overrides = ["run.dir=elsewhere", "label.actors=4", "cluster.cpus=2", "cluster.train_loaders=3"]
    for format in (1, 2):
        assert Settings().differences(record(load(file), format)["config"], load(file, overrides)) == []


def test_an_override_reaches_into_a_list_and_makes_its_own_difference(file: Path) -> None:
    plain, changed = load(file, [TWO]), load(file, [TWO, "student.1.optimizer.lr=0.5"])
    for format in (1, 2):
        assert Settings().differences(record(plain, format)["config"], changed) == [
            "student.1.optimizer.lr: 0.1 -> 0.5"
        ]


def test_a_recipe_more_or_less_is_told(file: Path) -> None:
    one = load(file, [TWO, "student=[{model: {name: resnet10t}, steps: 4, batch: 6}]"])
    (row,) = Settings().differences(record(load(file, [TWO]))["config"], one)
    assert row.startswith("student.1: {")


def test_first_weights_are_known_by_their_hash_and_not_by_where_they_lie(file: Path) -> None:
    def config(path: str, sha256: str) -> Config:
        return load(file, [f"teacher.model.pretrained={path}", f"teacher.model.sha256={sha256}"])

    one = record(config("a.safetensors", "a" * 64))["config"]
    assert Settings().differences(one, config("b/c.safetensors", "a" * 64)) == []
    (row,) = Settings().differences(one, config("a.safetensors", "b" * 64))
    assert row.startswith("teacher.model.sha256: ")
