"""The loss curves of four recipes, as they were: whoever changes one has changed what every user's training does.

They are computed in float64. Processors sum in different orders, and 30 steps make a rounding error grow up to 100,000
times: from 1e-7 to 1.3e-2 in float32, which hides real changes, but from 1e-15 to 1e-11 in float64. ``BOUND`` lies far
above that and far below the least change of a recipe; a test shows each. What is left to a processor's family is which
numbers torch draws for dropout (on x86 they are MKL's) and how Pillow rounds a pixel that it moves, so the recipes with
dropout and RandAugment are compared on x86 alone.

A curve that is meant to change: delete its file and run this test twice; the first run writes it anew.
"""

import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support import tiny_training

from ray_ns.config import Config, Student, Training
from ray_ns.images.augment import per_image
from ray_ns.methods.objectives import objective_of
from ray_ns.train.fit import Worker, fit
from ray_ns.train.state import TrainState

BOUND = 1e-7
RANDAUGMENT = {"augment": "randaugment", "magnitude": 9.0, "operations": 2}
# The defaults of runs before FORMAT 4, which go on as they began.
EARLIER = {"noise": {**RANDAUGMENT, "probability": 0.5, "cutout_operation": False}, "ema_warmup": "timm"}
RECIPES: dict[str, dict[str, Any]] = {
    "supervised-sgd-affine": {
        "optimizer": {"name": "sgd", "lr": 0.05, "warmup_steps": 5},
        "noise": {"augment": "affine", "magnitude": 0.7},
        "model": {"name": "resnet10t", "args": {"channels": [8, 8, 16, 16], "stem_width": 8, "output_stride": 16}},
        "ema_decay": None,
    },
    "student-soft-randaugment-ema": {
        **EARLIER,
        "optimizer": {"name": "sgd", "lr": 0.05, "warmup_steps": 5, "schedule": "constant"},
        "ema_decay": 0.9,
        "targets": "soft",
    },
    "student-hard-sum-rmsproptf": {
        **EARLIER,
        "optimizer": {"name": "rmsproptf", "lr": 0.002, "warmup_steps": 5},
        "ema_decay": 0.9,
        "targets": "hard",
        "loss": "sum",
    },
    "student-soft-sum-papers": {
        "optimizer": {"name": "rmsproptf", "lr": 0.002, "warmup_steps": 5},
        "noise": RANDAUGMENT,
        "ema_decay": 0.9,
        "targets": "soft",
        "loss": "sum",
    },
}
ON_X86 = pytest.mark.skipif(platform.machine().lower() not in {"x86_64", "amd64"}, reason="other draws, other pixels")
COMPARED = [name if name.startswith("supervised") else pytest.param(name, marks=ON_X86) for name in RECIPES]


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    yield
    torch.set_default_dtype(torch.float32)


def curve(name: str, config: Config, folder: Path, error: float = 0.0, rate: float = 1.0) -> list[float]:
    """The losses of 30 steps of a recipe, whose first weights are off by the relative ``error``, as rounding would."""
    kind, plain = (Training, config.teacher) if name.startswith("supervised") else (Student, config.student)
    optimizer = {**RECIPES[name]["optimizer"], "lr": rate * RECIPES[name]["optimizer"]["lr"]}
    recipe = kind.model_validate({**plain.model_dump(), "steps": 30, **RECIPES[name], "optimizer": optimizer})
    ratio = recipe.ratio if isinstance(recipe, Student) else 0
    augment = per_image(recipe.noise, config.data.size)
    objective = objective_of(recipe, recipe.batch, isinstance(recipe, Student))
    state = TrainState.fresh(objective, config.data, 3, torch.device("cpu"))
    with torch.no_grad():
        for weight in state.kept.network.parameters():
            weight.mul_(1 + error * torch.randn_like(weight))
    steps = tiny_training.steps_in(folder, ratio=ratio, augment=augment, sharpness=1.0 if "hard" in name else 0.8)
    losses: list[float] = []
    fit(
        objective,
        config.data,
        steps,
        state,
        Worker(torch.device("cpu"), 3),
        lambda _, loss: losses.append(loss),
    )
    return losses


@pytest.mark.parametrize("name", COMPARED)
def test_the_loss_curve_is_the_one_it_was(name: str, config: Config, tmp_path: Path) -> None:
    losses = curve(name, config, tmp_path)
    golden = Path(__file__).with_name(f"{name}.txt")
    if not golden.exists():
        golden.write_text("".join(f"{loss:.10f}\n" for loss in losses))
        pytest.fail(f"{golden.name} was not there and has been written: look at it, and run again")
    assert losses == pytest.approx([float(line) for line in golden.read_text().split()], rel=BOUND)


@pytest.mark.parametrize("name", RECIPES)
def test_a_rounding_error_stays_far_below_the_bound(name: str, config: Config, tmp_path: Path) -> None:
    whole = curve(name, config, tmp_path)
    assert curve(name, config, tmp_path, error=1e-15) == pytest.approx(whole, rel=BOUND / 100)


@pytest.mark.parametrize("name", RECIPES)
def test_a_change_of_the_recipe_lies_far_above_the_bound(name: str, config: Config, tmp_path: Path) -> None:
    whole = curve(name, config, tmp_path)
    assert curve(name, config, tmp_path, rate=1.001) != pytest.approx(whole, rel=10 * BOUND)
