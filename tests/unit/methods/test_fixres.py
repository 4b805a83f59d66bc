"""FixRes as an objective: which tensors the common training loop changes, where it is stopped and goes on, too."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
import torch
from support.tiny_training import KEY, steps_in, write_images
from torch import Tensor

from ray_ns.config import Config, Fixing, Fixres
from ray_ns.corpora.corpus import Corpus
from ray_ns.methods.objectives import objective_of
from ray_ns.methods.objectives.fixres import Fix
from ray_ns.train.fit import Worker, fit
from ray_ns.train.sources import Sources
from ray_ns.train.state import TrainState

CPU = torch.device("cpu")
VARIANTS = ("statistics", "head", "head_and_norm")


def fixing_of(config: Config, variant: str, **settings: object) -> Fixing:
    found = Fixres.model_validate({"size": 24, "variant": variant, "steps": 4, **settings})
    teacher = config.teacher.model_copy(update={"fixres": found, "batch": 4, "ema_decay": 0.9})
    assert teacher.fixing is not None
    return teacher.fixing


def begun(config: Config, fixing: Fixing, key: int = KEY) -> TrainState:
    """A correction of a network whose batch norms know something."""
    objective = objective_of(fixing, 4, selection=False)
    torch.manual_seed(0)
    first = TrainState.fresh(objective_of(config.teacher, 4, selection=False), config.data, KEY, CPU).kept.network
    for _ in range(3):
        first.train()(torch.randn(4, 1, 16, 16) + 1)
    return TrainState.fresh(objective, config.data, key, CPU, first.state_dict())


def corrected(config: Config, fixing: Fixing, folder: Path, state: TrainState, until: int | None = None) -> TrainState:
    class EndedError(Exception):
        pass

    def after_step(state: TrainState, loss: float) -> None:
        if state.step == until:
            raise EndedError

    objective = objective_of(fixing, 4, selection=False)
    with contextlib.suppress(EndedError):
        fit(objective, config.data, steps_in(folder, ratio=0), state, Worker(CPU, KEY), after_step)
    return state


def weights(state: TrainState) -> dict[str, Tensor]:
    return {name: it.clone() for name, it in state.result.state_dict().items()}


def test_the_recipe_of_a_correction_has_its_objective(config: Config) -> None:
    fixing = fixing_of(config, "head")
    assert objective_of(fixing, 4, selection=False) == Fix(fixing, 4)
    assert begun(config, fixing).kept.average is None


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_loop_changes_what_the_variant_names_and_nothing_else(config: Config, tmp_path: Path, variant: str) -> None:
    fixing = fixing_of(config, variant)
    state = begun(config, fixing)
    before = weights(state)
    after = weights(corrected(config, fixing, tmp_path, state))
    found = {name for name in before if not torch.equal(before[name], after[name])}
    buffers = {name for name, _ in state.result.named_buffers()}
    head = {"fc.weight", "fc.bias"}
    last = {name for name in buffers if name.startswith("layer4.0.bn2.")}
    counted = {name for name in buffers if name.endswith("num_batches_tracked")}
    wanted = {"head": head, "head_and_norm": head | last, "statistics": buffers}[variant]
    assert len(buffers) > len(last) == 3
    assert found - counted == wanted - counted


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_that_goes_on_from_a_checkpoint_ends_as_one_in_one_go(config: Config, tmp_path: Path, variant: str) -> None:
    fixing = fixing_of(config, variant)
    whole = corrected(config, fixing, tmp_path, begun(config, fixing))
    half = corrected(config, fixing, tmp_path, begun(config, fixing), until=2)
    again = begun(config, fixing, key=KEY + 1)
    again.load(half.step, half.tensors(), half.facts())
    corrected(config, fixing, tmp_path, again)
    assert again.step == whole.step == 4
    torch.testing.assert_close(weights(again), weights(whole), rtol=0, atol=0)
    assert again.kept.optimizer.state_dict()["state"].keys() == whole.kept.optimizer.state_dict()["state"].keys()


def test_the_labels_are_smoothed_as_the_correction_says(config: Config, tmp_path: Path) -> None:
    write_images(tmp_path / "labelled", 9)
    corpora = {"labelled": Corpus.scan(str(tmp_path / "labelled"), "image", "label")}
    fixing = fixing_of(config, "head", label_smoothing=0.3)
    targets = Sources(fixing, config.data, corpora).labelled().targets(np.arange(3))
    assert targets.max(1) == pytest.approx([0.8] * 3)
    assert targets.min(1) == pytest.approx([0.1] * 3)
