"""Rounds of different students, a student that begins with its teacher's weights, and fine-tuning at another size."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load
from support.tiny_run import ray_ns, report, write_tiny
from torch import Tensor

pytestmark = [pytest.mark.ray, pytest.mark.chaos]


def weights(run: Path, stage: str) -> dict[str, Tensor]:
    commit = json.loads((run / stage / "commit.json").read_text())
    return load((run / commit["parts"][0]["objects"]["model.safetensors"]["key"]).read_bytes())


def test_two_recipes_the_second_from_its_teacher_and_each_network_at_its_own_size(tmp_path: Path) -> None:
    config = write_tiny(tmp_path)
    model = "{name: resnet10t, args: {channels: [8, 16, 16, 16], stem_type: deep, stem_width: 4, output_stride: 16}}"
    student = f"model: {model}, steps: 4, batch: 8, noise: {{augment: none}}, optimizer: {{lr: 0.001}}"
    overrides = [
        "run.rounds=2",
        "run.patience=2",
        "select.threshold=0",
        "teacher.finetune={steps: 2, size: 32, freeze: 2, optimizer: {lr: 0.01}}",
        f"student=[{{{student}, train_size: 24, test_size: 30}}, {{{student}, ratio: 2, init: teacher}}]",
    ]
    done = ray_ns("run", str(config), *overrides, "--json")
    run = tmp_path / "run"
    rounds = report(done)["rounds"]
    assert [row["round"] for row in rounds] == ["rounds/0", "rounds/1", "rounds/2"]
    before, after = weights(run, "rounds/0/train"), weights(run, "rounds/0/finetune")
    kept = {name for name in before if before[name].equal(after[name])}
    assert any("conv1" in name or "stem" in name for name in kept)
    assert "fc.weight" not in kept
    sizes = {
        stage: json.loads((run / stage / "commit.json").read_text())["summary"]["size"]
        for stage in ("rounds/0/train", "rounds/0/finetune", "rounds/1/train", "rounds/2/train")
    }
    assert list(sizes.values()) == [28, 32, 30, 28]
    best = int(rounds[1]["promoted"])  # round 2's teacher
    teacher = weights(run, "rounds/0/finetune" if best == 0 else "rounds/1/train")
    begun, other = weights(run, "rounds/2/train"), weights(run, "rounds/1/train" if best == 0 else "rounds/0/finetune")
    far = (begun["fc.weight"] - other["fc.weight"]).abs().max()
    assert (begun["fc.weight"] - teacher["fc.weight"]).abs().max() < 0.1 * far
