"""SIGKILL of training workers under Ray Train: the same weights as if none had died, and what it cost is told."""

import json
from pathlib import Path

import pytest
from tiny_run import faulty, ray_ns, write_tiny

pytestmark = [pytest.mark.ray, pytest.mark.chaos]

TRAIN = "rounds/0/train"


def train(config: Path, run: Path, *words: str, kills: tuple[str, ...] = ()) -> tuple[bytes, dict[str, float]]:
    """Train a teacher with some of its workers killed; its commit, and what it cost."""
    env = faulty(f"die:{';'.join(kills)}:{run.parent / run.name}-killed" if kills else None)
    ray_ns("run", str(config), f"run.dir={run}", "--until", "label", *words, env=env)
    for number in range(len(kills)):
        assert run.with_name(f"{run.name}-killed-{number}").exists(), f"kill {number} was never reached"
    return (run / TRAIN / "commit.json").read_bytes(), json.loads((run / TRAIN / "cost.json").read_text())


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("workers"))


def test_one_worker_killed_between_tensors_and_pointer_and_after_a_checkpoint(config: Path) -> None:
    whole, _ = train(config, config.parent / "one")
    kills = ("checkpoints/000000010-.*safetensors", "checkpoints/000000020.json")
    killed, _ = train(config, config.parent / "one-killed-twice", kills=kills)
    assert killed == whole


def test_one_of_two_workers_killed_three_times(config: Path) -> None:
    words = ("cluster.train_workers=2", "cluster.cpus=2")
    whole, _ = train(config, config.parent / "two", *words)
    kills = tuple(f"checkpoints/0000000{step}.json" for step in (10, 20, 30))
    killed, cost = train(config, config.parent / "two-killed", *words, kills=kills)
    assert killed == whole
    assert 0 < cost["goodput"] < 1
    assert cost["read_amplification"] > 0
    assert 0 <= cost["checkpoint_stall"] < 1


def test_an_elastic_training_survives_a_kill_too(config: Path) -> None:
    words = ("cluster.train_workers=[1, 2]", "cluster.cpus=2")
    _, cost = train(config, config.parent / "elastic", *words, kills=("checkpoints/000000020.json",))
    assert cost["goodput"] > 0


def test_one_of_two_workers_told_to_leave_costs_no_step(config: Path) -> None:
    words = ("cluster.train_workers=2", "cluster.cpus=2", "cluster.checkpoint_steps=1000")
    whole, _ = train(config, config.parent / "stays", *words)
    run, marker = config.parent / "leaves", config.parent / "told"
    env = faulty(f"term:progress.json|checkpoints/.*json:{marker}")
    ray_ns("run", str(config), f"run.dir={run}", "--until", "label", *words, env=env)
    assert (run / TRAIN / "commit.json").read_bytes() == whole
    written = [(name, int(step)) for name, step in map(str.split, marker.read_text().splitlines())]
    pointers = [(at, step) for at, (name, step) in enumerate(written) if name != "progress.json"]
    ((at, step),) = pointers
    assert 2 <= step <= 5, written
    assert written[at + 1] == ("progress.json", step + 1), "the next step after the pointer is the one after it"
