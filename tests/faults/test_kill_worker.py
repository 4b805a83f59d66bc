"""SIGKILL of training workers under Ray Train: the same weights as if none had died, and what it cost is told."""

import json
from collections import Counter
from pathlib import Path

import pytest
from support.tiny_run import faulty, ray_ns, write_tiny
from support.two_nodes import two_nodes

from ray_ns.keyed import seed
from ray_ns.train.sampler import Order

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
    kills = ("checkpoints/.*/000000010-.*safetensors", "checkpoints/.*/000000020-.*json")
    killed, _ = train(config, config.parent / "one-killed-twice", kills=kills)
    assert killed == whole


def test_a_worker_killed_after_it_published_trains_nothing_again(config: Path) -> None:
    whole, _ = train(config, config.parent / "publishes")
    run, marker = config.parent / "published", config.parent / "published-killed"
    env = faulty(f"die:{TRAIN}/done/000000.json:{marker}")
    ray_ns("run", str(config), f"run.dir={run}", "--until", "label", env=env)
    assert (run / TRAIN / "commit.json").read_bytes() == whole
    (weights,) = (run / TRAIN / "data").rglob("model.safetensors")
    assert weights.stat().st_mtime_ns < marker.with_name(f"{marker.name}-0").stat().st_mtime_ns
    assert not list((run / TRAIN / "checkpoints").glob("*/*"))


def test_one_of_two_workers_killed_three_times(config: Path) -> None:
    words = ("cluster.train_workers=2", "cluster.bn_group=2", "cluster.cpus=2")
    whole, _ = train(config, config.parent / "two", *words)
    kills = tuple(f"checkpoints/.*/0000000{step}-.*json" for step in (10, 20, 30))
    killed, cost = train(config, config.parent / "two-killed", *words, kills=kills)
    assert killed == whole
    assert 0 < cost["goodput"] < 1
    assert cost["read_amplification"] > 0
    assert 0 <= cost["checkpoint_stall"] < 1


def test_one_of_two_workers_killed_three_times_twenty_seconds_after_an_attempts_first_step(config: Path) -> None:
    words = ("cluster.train_workers=2", "cluster.cpus=2", "teacher.steps=300")
    whole, _ = train(config, config.parent / "undisturbed", *words)
    run, marker = config.parent / "late", config.parent / "late-killed"
    ray_ns("run", str(config), f"run.dir={run}", "--until", "label", *words, env=faulty(f"late:20:{marker}"))
    assert all(marker.with_name(f"{marker.name}-{number}").exists() for number in range(3))
    assert (run / TRAIN / "commit.json").read_bytes() == whole
    assert 0.2 < json.loads((run / TRAIN / "cost.json").read_text())["goodput"] < 1


def test_an_elastic_training_survives_a_kill_too(config: Path) -> None:
    words = ("cluster.train_workers=[1, 2]", "cluster.cpus=2")
    _, cost = train(config, config.parent / "elastic", *words, kills=("checkpoints/.*/000000020-.*json",))
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


Shares = list[tuple[int, int, int, list[list[int]]]]  # step, rank, world, the images


def shares(folder: Path) -> Shares:
    """What the workers of a run noted of their shares of every step."""
    return [tuple(json.loads(line)) for path in folder.iterdir() for line in path.read_text().splitlines()]


def assert_in_order(came: Shares, steps: int) -> None:
    """Every share of a step is the worker's part of what a worker that is alone all along would see there."""
    batch, images = 20, 10
    alone_all_along = Order([images], batch, seed(seed(3, 0), 0))  # one row group; the run's seed, round 0, labelled
    order = [[list(slot) for slot in alone_all_along.slots(step)] for step in range(steps)]
    assert set(Counter(entry for found in order for _, entry in found).values()) == {steps * batch // images}
    for step, rank, world, found in came:
        assert found == order[step][rank * batch // world : (rank + 1) * batch // world], f"step {step} of {world}"


def steps_by_worker(came: Shares) -> dict[tuple[int, int], list[int]]:
    """The steps that each (rank, world) did."""
    done: dict[tuple[int, int], list[int]] = {(0, 1): [], (0, 2): [], (1, 2): []}
    for step, rank, world, _ in came:
        done[rank, world].append(step)
    return {worker: sorted(found) for worker, found in done.items()}


def test_a_training_goes_on_with_one_worker_when_the_other_ones_node_dies(config: Path) -> None:
    steps = 200
    notes = config.parent / "order"
    notes.mkdir()
    words = (f"teacher.steps={steps}", "cluster.checkpoint_steps=20", "cluster.train_threads=2")
    run = config.parent / "node"
    soon = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "20"}  # Ray first tries two again, as it has not missed the node
    with two_nodes(run / TRAIN / "checkpoints/*/000000020-*.json", faulty(f"order::{notes}")) as env:
        elastic = (*words, "cluster.train_workers=[1, 2]")
        ray_ns("run", str(config), f"run.dir={run}", "--until", "label", *elastic, env={**env, **soon})
    assert json.loads((run / TRAIN / "done/000000.json").read_text())["facts"]["steps"] == steps
    came = shares(notes)
    assert_in_order(came, steps)
    done = steps_by_worker(came)
    begun = done[0, 1][0]
    assert begun >= 20, "it went on from a checkpoint"
    assert done[0, 1] == list(range(begun, steps))
    assert set(range(begun)) <= set(done[0, 2]) & set(done[1, 2])


def test_a_training_takes_in_a_node_that_joins_and_redoes_no_step(config: Path) -> None:
    steps = 450
    notes = config.parent / "order-joins"
    notes.mkdir()
    words = (f"teacher.steps={steps}", "cluster.checkpoint_steps=5000", "cluster.train_threads=2")
    run = config.parent / "joins"
    # Ray looks for more machines once a minute: alone, all the steps take more than two.
    with two_nodes(run / TRAIN / "progress.json", faulty(f"order:0.3:{notes}"), "joins") as env:
        elastic = (*words, "cluster.train_workers=[1, 2]")
        ray_ns("run", str(config), f"run.dir={run}", "--until", "label", *elastic, env=env)
    assert json.loads((run / TRAIN / "done/000000.json").read_text())["facts"]["steps"] == steps
    came = shares(notes)
    assert_in_order(came, steps)
    done = steps_by_worker(came)
    grown = done[0, 2][0]
    assert 0 < grown < steps
    assert done == {(0, 1): list(range(grown)), (0, 2): list(range(grown, steps)), (1, 2): list(range(grown, steps))}
