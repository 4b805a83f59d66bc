"""The surface of the schema, and that each value of a wrong type or out of range is refused by its dotted name."""

import re
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError
from support.settings import MINIMAL, REQUIRED, SETTINGS, fields, leaves, refusal

from ray_ns.config.read import load


def test_the_settings_are_these_and_no_others() -> None:
    assert sorted(path for path, _ in fields()) == SETTINGS


def test_the_settings_without_a_default_are_these_and_no_others(file: Path) -> None:
    assert {path for path, field in fields() if field.is_required()} == REQUIRED
    assert {path for path, _ in leaves(MINIMAL)} == REQUIRED


def test_every_setting_says_what_it_is_in_one_line() -> None:
    assert [path for path, field in fields() if not field.description or "\n" in field.description] == []


def test_settings_cannot_be_changed_after_loading(file: Path) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        setattr(load(file).run, "seed", 1)  # noqa: B010 - a type checker would see it too


@pytest.mark.parametrize(
    ("override", "path", "suggestion"),
    [
        ("teacher.step=3", "teacher.step", "steps"),
        ("student.optimizer.learning=1", "student.optimizer.learning", None),
        ("student.optimizer.momentun=0.9", "student.optimizer.momentun", "momentum"),
        ("student.model.droppath=0.1", "student.model.droppath", "drop_path"),
        ("studnet={}", "studnet", "student"),
        ("zzz=3", "zzz", None),
        ("select.treshold=0.5", "select.treshold", "threshold"),
        ("teacher.ratio=3", "teacher.ratio", None),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(
    file: Path, override: str, path: str, suggestion: str | None
) -> None:
    message = refusal(file, override)
    hint = f"did you mean {suggestion}?" if suggestion else "see 'ray-ns config'"
    assert re.search(rf"(^|[ :;]){re.escape(path)}: unknown key.*{re.escape(hint)}", message)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("run.seed", "'1'"),
        ("run.seed", "true"),
        ("run.seed", "1.0"),
        ("run.seed", "null"),
        ("run.dir", "null"),
        ("data.channels", "'3'"),
        ("data.mean", "0.5"),
        ("teacher.steps", "1e3"),
        ("teacher.batch", "many"),
        ("teacher.model.args", "[1]"),
        ("teacher.optimizer.lr", "fast"),
        ("teacher.optimizer.lr", "null"),
        ("teacher.optimizer.lr", "true"),
        ("teacher.noise.flip", "1"),
        ("teacher.noise.flip", "'yes'"),
        ("student.targets", "[soft]"),
        ("select.balance", "0"),
        ("cluster.cpus", "all"),
        ("cluster.address", "6379"),
    ],
)
def test_a_value_of_a_wrong_type_is_refused_by_name(file: Path, setting: str, value: str) -> None:
    message = refusal(file, f"{setting}={value}")
    assert f"{setting}: found " in message
    assert repr(yaml.safe_load(value) if value != "1e3" else 1000.0) in message


OUT_OF_RANGE = [
    *(("run.seed", "-1"), ("run.seed", str(2**31)), ("run.rounds", "0"), ("run.rounds", "21"), ("run.patience", "0")),
    *(("run.dir", "''"), ("data.labelled", "''"), ("data.pool", "''")),
    *(("data.validation", "''"), ("data.test", "''"), ("data.held_out", "-1"), ("data.held_out", "1")),
    *(("data.classes", "1"), ("data.classes", "32768"), ("data.size", "7"), ("data.size", "2049")),
    *(("data.channels", "2"), ("data.max_quarantined", "-0.1"), ("data.max_quarantined", "1.1")),
    *(("data.mean.1", "[0.5, 1.5, 0.5]"), ("data.std.2", "[0.5, 0.5, 0]")),
    *(("teacher.steps", "0"), ("teacher.batch", "0"), ("teacher.batch", "-8"), ("teacher.label_smoothing", "1")),
    *(("teacher.ema_decay", "0"), ("teacher.ema_decay", "1"), ("teacher.precision", "float16")),
    *(("teacher.model.dropout", "1"), ("teacher.model.dropout", "-0.1"), ("teacher.model.drop_path", "1.0")),
    *(("teacher.optimizer.lr", "0"), ("teacher.optimizer.lr", "-1e-3"), ("teacher.optimizer.momentum", "1")),
    *(("teacher.optimizer.weight_decay", "-1e-9"), ("teacher.optimizer.warmup_steps", "-1")),
    *(("teacher.optimizer.schedule", "linear"), ("teacher.noise.augment", "mixup")),
    *(("teacher.noise.magnitude", "10.5"), ("teacher.noise.magnitude", "-1"), ("teacher.noise.operations", "0")),
    *(("student.ratio", "-1"), ("student.ratio", "0"), ("student.ratio", "65"), ("student.temperature", "0")),
    *(("student.targets", "medium"), ("student.loss", "max"), ("label.keep", "some"), ("label.top", "0")),
    *(("label.slice_rows", "0"), ("label.actors", "0"), ("label.threads", "0"), ("label.gpus_per_actor", "-1")),
    *(
        ("select.threshold", "1.5"),
        ("select.threshold", "-0.3"),
        ("select.per_class", "0"),
        ("select.per_class", "all"),
    ),
    *(("cluster.cpus", "0"), ("cluster.object_store_mb", "79"), ("cluster.train_workers", "0")),
    *(("cluster.train_gpus", "2"), ("cluster.train_loaders", "-1"), ("cluster.max_failures", "-1")),
    *(("cluster.checkpoint_steps", "0"), ("cluster.timeout_seconds", "0"), ("cluster.store_seconds", "0")),
]


@pytest.mark.parametrize(("setting", "value"), OUT_OF_RANGE)
def test_a_value_out_of_range_is_refused_by_name(file: Path, setting: str, value: str) -> None:
    key = setting if not setting[-1].isdigit() else setting[:-2]
    message = refusal(file, f"{key}={value}")
    assert setting in message
    assert "found " in message


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf", "1e999", "nan"])
@pytest.mark.parametrize("setting", ["teacher.optimizer.lr", "select.threshold", "teacher.ema_decay", "data.mean"])
def test_numbers_that_are_not_finite_are_refused(file: Path, setting: str, value: str) -> None:
    text = f"[{value}, 0.5, 0.5]" if setting == "data.mean" else value
    assert setting in refusal(file, f"{setting}={text}")


@pytest.mark.parametrize(
    "value",
    ["{a: .nan}", "{a: [1, .inf]}", "{a: {1: 2}}", "{a: !!set {b, c}}", "{a: !!binary aGk=}"],
)
def test_model_arguments_that_json_cannot_hold_are_refused_by_name(file: Path, value: str) -> None:
    # They go into run.json; what does not come back the same would crash the run or bar its owner from it.
    assert "student.model.args" in refusal(file, f"student.model.args={value}")
