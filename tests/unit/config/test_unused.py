"""Settings that are given and that nothing reads are told of."""

import pytest
from support.settings import MINIMAL

from ray_ns.config import Config
from ray_ns.config.presets import presets
from ray_ns.config.read import load
from ray_ns.config.unused import unused


@pytest.mark.parametrize(
    ("method", "told"),
    [("noisy_student", ["uda", "mpl"]), ("uda", ["mpl"]), ("meta_pseudo_labels", []), ("supervised", ["uda", "mpl"])],
)
def test_a_section_that_the_method_does_not_read_is_told_of(method: str, told: list[str]) -> None:
    values = {**MINIMAL, "run": {**MINIMAL["run"], "method": method}}
    assert unused(Config.model_validate(values)) == []
    found = unused(Config.model_validate({**values, "uda": {"weight": 2.0}, "mpl": {"scale": 2.0}}))
    assert [line.split()[1] for line in found] == told
    assert all(f"run.method: {method}" in line for line in found)


@pytest.mark.parametrize("controls", [False, True])
def test_section_uda_is_read_by_a_control_alone_where_stored_labels_are_adjusted(controls: bool) -> None:
    run = {**MINIMAL["run"], "method": "meta_pseudo_labels"}
    beside = {"mpl": {"reduced": True}, "uda": {"weight": 2.0}, "control": {"enabled": controls}}
    assert len(unused(Config.model_validate({**MINIMAL, "run": run, **beside}))) == (not controls)


def told(*words: str) -> list[str]:
    """The settings of the smallest config with some words that are told of."""
    return [line.partition(" has no effect")[0] for line in unused(load(MINIMAL, words))]


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["select.balance=false", "select.per_class=100"], "select.per_class"),
        (["student.targets=hard", "student.temperature=0.5"], "student.temperature"),
        (["teacher.finetune.size=64"], "teacher.finetune.size"),
        (["student.finetune.freeze=2"], "student.finetune.freeze"),
        (["student.finetune.optimizer.lr=0.5"], "student.finetune.optimizer"),
        (["teacher.fixres.variant=head"], "teacher.fixres.variant"),
        (["teacher.ema_warmup=timm"], "teacher.ema_warmup"),
        (["teacher.noise={augment: affine, magnitude: 1, operations: 3}"], "teacher.noise.operations"),
        (["teacher.noise={augment: flip, magnitude: 1}"], "teacher.noise.magnitude"),
        (["student.optimizer.decay_rate=0.5"], "student.optimizer.decay_rate"),
        (["student.finetune={steps: 1, optimizer: {decay_rate: 0.5}}"], "student.finetune.optimizer.decay_rate"),
        (["run.rounds=1", "run.mode=filter_once"], "run.mode"),
        (["run.rounds=1", "run.patience=3"], "run.patience"),
        (["label.keep=hard", "student.targets=hard", "label.top=3"], "label.top"),
        (["data.validation=v", "data.test=t", "data.held_out=0.2"], "data.held_out"),
    ],
)
def test_a_setting_without_effect_is_told_of(words: list[str], name: str) -> None:
    assert told(*words) == [name]


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["select.per_class=100"],
        ["student.temperature=0.5"],
        ["student.finetune.steps=3", "student.finetune.size=64", "student.finetune.optimizer.lr=0.5"],
        ["teacher.fixres.size=64", "teacher.fixres.variant=head"],
        ["teacher.ema_decay=0.9", "teacher.ema_warmup=timm"],
        ["teacher.noise.operations=3", "teacher.noise.probability=0.5"],
        ["run.mode=filter_once", "run.patience=3"],
        ["teacher.finetune.freeze=0", "select.balance=false", "select.per_class=auto"],
        ["label.top=3"],
        ["data.validation=v", "data.held_out=0.2"],
    ],
)
def test_settings_that_are_read_and_defaults_are_not(words: list[str]) -> None:
    assert told(*words) == []


@pytest.mark.parametrize("name", presets())
def test_no_preset_has_such_a_setting(name: str) -> None:
    """But sections for the other methods of a study."""
    found = unused(load(presets()[name], ["labelled=a", "pool=b"] if name == "own-data" else []))
    assert [line for line in found if not line.startswith("section")] == []
