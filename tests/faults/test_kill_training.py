"""SIGKILL of a training at any step and inside any write: the same weights, average and losses, bit for bit."""

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load
from support import tiny_training
from support.held import HOLDER
from support.tiny_training import EVERY, PREFIX, STEPS, Kill, end_of, in_a_process

from ray_ns.config import Config

TENSORS, POINTER = r"checkpoints/.*safetensors", r"checkpoints/.*json"


class Trainings:
    """One uninterrupted training, and any number that are killed."""

    def __init__(self, folder: Path, config: Config) -> None:
        self.folder, self._config = folder, config
        tiny_training.steps_in(folder / "data")
        tiny_training.score_in(folder / "data", config)
        assert self.run("whole") == 0
        self.whole = end_of(folder / "whole")
        self.steps = len(self.whole[1]["losses"])
        self.fourth = min(4, (self.steps - 1) // EVERY)  # checkpoint, or the last one of a training that ends early

    def run(self, name: str, kill: Kill | None = None) -> int:
        return in_a_process(self.folder / name, self.folder / "data", self._config, kill)

    def kill(self, name: str, kill: Kill) -> None:
        assert self.run(name, kill) == -signal.SIGKILL, f"{kill} was never reached"

    def network(self, name: str) -> bytes:
        (file,) = (self.folder / name / PREFIX / "data").rglob("*model.safetensors")
        return file.read_bytes()

    def end(self, name: str) -> dict[str, Any]:
        """Run to the end, which must be that of the uninterrupted one; what else was noted."""
        assert self.run(name) == 0
        tensors, noted = end_of(self.folder / name)
        whole, wanted = self.whole
        assert tensors.keys() == whole.keys()
        assert not [key for key, tensor in whole.items() if not torch.equal(tensor, tensors[key])]
        assert noted["losses"] == wanted["losses"]
        assert noted["facts"] == wanted["facts"]
        done = PREFIX + "/done/000000.json"
        assert (self.folder / name / done).read_bytes() == (self.folder / "whole" / done).read_bytes()
        assert not list((self.folder / name / PREFIX / "checkpoints").glob("*/*"))
        return noted


PATIENT = {"eval_steps": 2, "patience": 3}


@pytest.fixture(
    scope="module",
    params=[pytest.param({}, id="all steps"), pytest.param(PATIENT, id="patient", marks=pytest.mark.chaos)],
)
def trainings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, config: Config) -> Trainings:
    student = config.student.model_copy(update=request.param)
    return Trainings(tmp_path_factory.mktemp("trainings"), config.model_copy(update={"student": student}))


@pytest.mark.parametrize("trainings", [{}], ids=["all steps"], indirect=True)
def test_the_uninterrupted_training_is_what_it_should_be(trainings: Trainings) -> None:
    tensors, noted = trainings.whole
    assert len(noted["losses"]) == STEPS
    assert {name.split("/")[0] for name in tensors} == {"network", "ema", "optimizer"}


@pytest.mark.parametrize("trainings", [PATIENT], ids=["patient"], indirect=True)
def test_the_uninterrupted_patient_training_ends_early_with_its_best_weights(trainings: Trainings) -> None:
    tensors, noted = trainings.whole
    scores = noted["facts"]["scores"]
    best = max(scores, key=lambda score: score[1])
    assert trainings.steps == scores[-1][0] == best[0] + 3 * 2 < STEPS
    kept = load(trainings.network("whole"))
    assert all(torch.equal(tensor, tensors[f"best/{name}"]) for name, tensor in kept.items())


@pytest.mark.chaos
def test_killed_after_every_step_and_again_it_ends_as_if_it_never_was(trainings: Trainings) -> None:
    for step in range(1, trainings.steps + 1):
        trainings.kill(f"after-{step}", Kill(step))
        noted = trainings.end(f"after-{step}")
        # What was being written when the process died may be lost, never what came before.
        assert noted["from"] >= (step // EVERY - 1) * EVERY
        assert noted["from"] <= step


@pytest.mark.parametrize(
    "nth", [2, *(pytest.param(nth, marks=pytest.mark.chaos, id=f"checkpoint {nth}") for nth in (1, 4))]
)
def test_killed_in_every_write_of_a_checkpoint(trainings: Trainings, nth: int) -> None:
    nth = min(nth, trainings.fourth)
    for pattern in (TENSORS, POINTER):
        for moment in ("before", "inside", "after"):
            name = f"{pattern[-4:]}-{moment}-{nth}"
            trainings.kill(name, Kill(0, pattern, nth, moment))
            held = nth if (pattern, moment) == (POINTER, "after") else nth - 1
            assert trainings.end(name)["from"] == held * EVERY, name


@pytest.mark.parametrize("trainings", [{}, PATIENT], ids=["all steps", "patient"], indirect=True)
def test_killed_six_times_in_a_row(trainings: Trainings) -> None:
    for kill in (
        Kill(4),
        Kill(5),
        Kill(0, TENSORS, 2, "inside"),
        Kill(trainings.steps - 3),
        Kill(0, POINTER, 1, "before"),
        Kill(trainings.steps - 1),
    ):
        trainings.kill("chain", kill)
    trainings.end("chain")


def test_a_flipped_bit_in_the_newest_checkpoint_costs_the_steps_since_the_one_before(trainings: Trainings) -> None:
    trainings.kill("rot", Kill(0, POINTER, trainings.fourth, "after"))
    folder = trainings.folder / "rot" / PREFIX / "checkpoints"
    newest = sorted(folder.rglob("*.safetensors"))[-1]
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    noted = trainings.end("rot")
    newest_step = trainings.fourth * EVERY
    assert noted["from"] == newest_step - EVERY
    (warning,) = noted["warnings"]
    assert f"/{newest_step:09}-000001-{HOLDER.lease}.json is not used" in warning
    assert f"/{newest_step - EVERY:09}-000001-{HOLDER.lease}.json is" in warning
