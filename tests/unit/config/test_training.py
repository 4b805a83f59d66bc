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
    assert config.at_size(320).data.size == 320


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
