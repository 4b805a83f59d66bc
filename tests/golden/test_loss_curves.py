"""The loss curves of three recipes, as they were: whoever changes one has changed what every user's training does.

A curve that is meant to change: delete its file and run this test twice; the first run writes it anew.
"""

from pathlib import Path
from typing import Any

import pytest
import tiny_training
import torch

from ray_ns.config import Config, Student, Training
from ray_ns.images.augment import per_image
from ray_ns.train.fit import Worker, fit
from ray_ns.train.state import TrainState

RANDAUGMENT = {"augment": "randaugment", "magnitude": 9.0, "operations": 2}
RECIPES: dict[str, dict[str, Any]] = {
    "supervised-sgd-affine": {
        "optimizer": {"name": "sgd", "lr": 0.05, "warmup_steps": 5},
        "noise": {"augment": "affine", "magnitude": 0.7},
        "ema_decay": None,
    },
    "student-soft-randaugment-ema": {
        "optimizer": {"name": "sgd", "lr": 0.05, "warmup_steps": 5, "schedule": "constant"},
        "noise": RANDAUGMENT,
        "ema_decay": 0.9,
        "targets": "soft",
    },
    "student-hard-sum-rmsproptf": {
        "optimizer": {"name": "rmsproptf", "lr": 0.002, "warmup_steps": 5},
        "noise": RANDAUGMENT,
        "ema_decay": 0.9,
        "targets": "hard",
        "loss": "sum",
    },
}


@pytest.mark.parametrize("name", RECIPES)
def test_the_loss_curve_is_the_one_it_was(name: str, config: Config, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    kind, plain = (Training, config.teacher) if name.startswith("supervised") else (Student, config.student)
    recipe = kind.model_validate({**plain.model_dump(), "steps": 30, **RECIPES[name]})
    ratio = recipe.ratio if isinstance(recipe, Student) else 0
    augment = per_image(recipe.noise, config.data.size)
    state = TrainState.fresh(recipe, config.data, 3, torch.device("cpu"))
    steps = tiny_training.steps_in(tmp_path, ratio=ratio, augment=augment, sharpness=1.0 if "hard" in name else 0.8)
    losses: list[float] = []
    fit(
        recipe,
        config.data,
        steps,
        state,
        Worker(torch.device("cpu"), 3),
        state.network,
        lambda _, loss: losses.append(loss),
    )
    golden = Path(__file__).with_name(f"{name}.txt")
    if not golden.exists():
        golden.write_text("".join(f"{loss:.7f}\n" for loss in losses))
        pytest.fail(f"{golden.name} was not there and has been written: look at it, and run again")
    # Another processor sums in another order; 30 steps carry that to the fifth digit at most.
    assert losses == pytest.approx([float(line) for line in golden.read_text().split()], rel=1e-4)
