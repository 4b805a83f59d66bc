"""A recipe: its fine-tuning, and which settings need each other."""

from pathlib import Path

import pytest
from support.settings import refusal

from ray_ns.config.read import load


def test_fine_tuning_is_a_training_on_unaugmented_images(file: Path) -> None:
    assert load(file).teacher.tuning is None
    config = load(file, ["teacher.finetune={steps: 3, size: 320, optimizer: {lr: 0.01}}", "teacher.ema_decay=0.9"])
    tuning = config.teacher.tuning
    assert tuning is not None
    assert (tuning.steps, tuning.optimizer.lr, tuning.noise.augment, tuning.batch) == (3, 0.01, "none", 6)
    assert (tuning.ema_decay, tuning.model, tuning.tuning) == (0.9, config.teacher.model, None)
    assert config.teacher.tuned_on(config.data).size == 320


def test_each_network_has_the_images_that_its_recipe_asks_for(file: Path) -> None:
    config = load(file, ["data.size=64", "teacher.train_size=48", "teacher.test_size=56"])
    teacher, student, data = config.teacher, config.students[0], config.data
    assert (teacher.trained_on(data).size, teacher.used_on(data).size, teacher.in_the_end(data).size) == (48, 56, 56)
    assert student.trained_on(data) == student.used_on(data) == data


@pytest.mark.parametrize(
    ("overrides", "sizes"),
    [
        ([], (48, 64, 80, 80)),
        (["teacher.test_size=96"], (48, 96, 80, 96)),
        (["teacher.finetune.size=null"], (48, 64, 64, 64)),
    ],
)
def test_a_fine_tuning_has_its_own_size_and_the_network_then_that_or_its_test_size(
    file: Path, overrides: list[str], sizes: tuple[int, ...]
) -> None:
    given = ["data.size=64", "teacher.train_size=48", "teacher.finetune={steps: 3, size: 80}"]
    config = load(file, [*given, *overrides])
    teacher, data = config.teacher, config.data
    tuning = teacher.tuning
    assert tuning is not None
    tuned = tuning.trained_on(teacher.tuned_on(data))
    found = teacher.trained_on(data), teacher.used_on(data), tuned, teacher.in_the_end(data)
    assert tuple(it.size for it in found) == sizes


def test_crop_and_interpolation_are_the_recipes_or_those_of_the_data(file: Path) -> None:
    given = [
        "data.fit=crop",
        "data.interpolation=bicubic",
        "teacher.crop_share=paper",
        "student.interpolation=bilinear",
    ]
    config = load(file, given)
    data = config.data
    teacher, student = config.teacher.in_the_end(data), config.students[0].trained_on(data)
    assert (teacher.crop_share, teacher.resized, teacher.interpolation) == ("paper", data.size + 32, "bicubic")
    assert (student.crop_share, student.interpolation) == (0.875, "bilinear")
    assert "teacher.crop_share = paper is for data.fit: crop" in refusal(file, "teacher.crop_share=paper")
    assert "crop_share = 0.9 is for fit: crop, and fit is squash" in refusal(file, "data.crop_share=0.9")
    assert "data.crop_share" in refusal(file, "data.fit=crop", "data.crop_share=1.1")
    assert "data.crop_share" in refusal(file, "data.fit=crop", "data.crop_share=code")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["teacher.optimizer.schedule=step"], "step needs decay_steps"),
        (["teacher.optimizer.decay_steps=5"], "schedule is cosine"),
        (["teacher.model.sha256=" + "a" * 64], "pretrained is false"),
        (["teacher.model.sha256=abc", "teacher.model.pretrained=true"], "teacher.model.sha256"),
    ],
)
def test_settings_that_need_each_other_are_refused_alone(file: Path, overrides: list[str], words: str) -> None:
    assert words in refusal(file, *overrides)


def test_patience_counts_scores_and_needs_some(file: Path) -> None:
    assert "teacher: patience = 2 counts scores and eval_steps is null" in refusal(file, "teacher.patience=2")
    assert load(file, ["teacher.patience=2", "teacher.eval_steps=10"]).teacher.patience == 2


def test_a_fine_tuning_is_not_scored(file: Path) -> None:
    tuning = load(file, ["teacher.patience=2", "teacher.eval_steps=10", "teacher.finetune.steps=5"]).teacher.tuning
    assert tuning is not None
    assert (tuning.eval_steps, tuning.patience) == (None, None)


def test_fixres_is_a_training_on_images_as_a_test_has_them(file: Path) -> None:
    assert load(file).teacher.fixing is None
    asked = "{size: 288, steps: 3, variant: head, label_smoothing: 0.1, optimizer: {lr: 0.01}}"
    own = ["teacher.ema_decay=0.9", "teacher.eval_steps=2", "teacher.patience=1", "teacher.label_smoothing=0.3"]
    teacher = load(file, [f"teacher.fixres={asked}", *own]).teacher
    fixing = teacher.fixing
    assert fixing is not None
    assert (fixing.steps, fixing.optimizer.lr, fixing.label_smoothing, fixing.variant) == (3, 0.01, 0.1, "head")
    assert (fixing.noise.crop, fixing.noise.augment, fixing.noise.flip, fixing.noise.cutout) == (
        "none",
        "none",
        False,
        0,
    )
    assert (fixing.ema_decay, fixing.eval_steps, fixing.patience) == (None, None, None)
    assert (fixing.model, fixing.batch) == (teacher.model, 6)
    assert (fixing.fixing, fixing.tuning) == (None, None)


def test_fixres_has_a_crop_of_its_own_or_the_recipes(file: Path) -> None:
    given = ["data.fit=crop", "teacher.crop_share=paper"]
    plain = load(file, [*given, "teacher.fixres={size: 288}"])
    own = load(file, [*given, "teacher.fixres={size: 288, crop_share: 1.0}"])
    assert plain.teacher.in_the_end(plain.data).resized == 288 + 32
    found = own.teacher.in_the_end(own.data)
    assert (found.size, found.crop_share, own.teacher.used_on(own.data).crop_share) == (288, 1.0, "paper")
    assert own.teacher.fixing is not None
    assert own.teacher.fixing.trained_on(own.data) == found
    asked = "teacher.fixres={size: 288, crop_share: 0.9}"
    assert "teacher.fixres.crop_share = 0.9 is for data.fit: crop, found squash" in refusal(file, asked)
    assert "size is null; set size" in refusal(file, "data.fit=crop", "teacher.fixres.crop_share=0.9")


def test_a_fine_tuning_does_not_depend_on_the_fixres_that_follows(file: Path) -> None:
    with_it = load(file, ["teacher.finetune.steps=3", "teacher.fixres.size=288"]).teacher.tuning
    assert with_it == load(file, ["teacher.finetune.steps=3"]).teacher.tuning
