import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.held import HOLDER
from support.measured import measured

from ray_ns.config import Config, Data, Student
from ray_ns.corpora.corpus import Corpus
from ray_ns.images.decode import Decode
from ray_ns.methods.objectives import NoisyStudent
from ray_ns.store import checkpoint
from ray_ns.store.objects import LocalStore
from ray_ns.train.data import Images, Steps, View
from ray_ns.train.fit import LeavingError, Worker, fit
from ray_ns.train.state import TrainState
from ray_ns.train.visits import visits_of

CPU = torch.device("cpu")
STEPS = 8
KEY = 5


@pytest.fixture
def steps(write_corpus: Callable[..., Corpus], pictures: Callable[..., list[bytes]]) -> Steps:
    """9 labelled images and 12 with soft labels, the class of each to be seen in its brightness."""

    def images(name: str, count: int, sharpness: float) -> Images:
        corpus = write_corpus(name, [pictures(count, seed=count)])
        table = np.full((count, 3), (1 - sharpness) / 2, np.float32)
        table[np.arange(count), np.arange(count) % 3] = sharpness
        visits = visits_of(corpus, np.arange(count), np.ones(count, int))
        return Images(corpus, visits, [View(Decode(16, 1))], lambda rows: table[rows])

    return Steps([(images("labelled", 9, 1.0), 4), (images("pool", 12, 0.8), 8)], KEY, 0, 1, None)


def recipe_of(config: Config, **changes: Any) -> Student:
    return Student.model_validate({**config.student.model_dump(), **changes})


def fresh(recipe: Student, data: Data, key: int = KEY) -> TrainState:
    return TrainState.fresh(NoisyStudent(recipe), data, key, CPU)


def train(
    recipe: Student,
    data: Data,
    steps: Steps,
    state: TrainState,
    after_step: Callable[[TrainState, float], None] = lambda state, loss: None,
    loaders: int = 0,
) -> TrainState:
    fit(NoisyStudent(recipe), data, steps, state, Worker(CPU, KEY, 0, loaders), after_step)
    return state


def test_a_worker_tells_of_its_steps_and_of_its_waits_for_images(config: Config, steps: Steps) -> None:
    began = time.perf_counter()
    with measured() as found:
        train(config.student, config.data, steps, fresh(config.student, config.data))
    whole = time.perf_counter() - began
    assert found.times("ns_step_seconds") == STEPS
    assert found.total("ns_train_images") == STEPS * (4 + 8)
    assert found.total("ns_bytes_read") == steps.bytes_read > 0
    assert 0 < found.total("ns_step_seconds") + found.total("ns_input_wait_seconds") < whole


def differing(one: TrainState, two: TrainState) -> list[str]:
    left, right = one.tensors(), two.tensors()
    assert left.keys() == right.keys()
    return [name for name in left if not torch.equal(left[name], right[name])]


@pytest.mark.parametrize(
    ("optimizer", "precision", "ema", "sam"),
    [
        ("sgd", "float32", 0.9, 0.0),
        ("sgd", "bfloat16", 0.9, 0.0),
        ("adamw", "float32", 0.9, 0.0),
        ("adamw", "bfloat16", 0.9, 0.0),
        ("sgd", "float32", None, 0.0),
        ("sgd", "float32", 0.9, 0.05),
    ],
)
def test_a_training_resumed_after_any_step_equals_the_uninterrupted_one(
    config: Config, steps: Steps, tmp_path: Path, optimizer: str, precision: str, ema: float | None, sam: float
) -> None:
    rate = {"name": optimizer, "lr": 0.05 if optimizer == "sgd" else 0.005, "warmup_steps": 2, "sam": sam}
    recipe = recipe_of(config, optimizer=rate, precision=precision, ema_decay=ema)
    store = LocalStore(tmp_path / "store")
    losses: list[float] = []

    def keep(state: TrainState, loss: float) -> None:
        losses.append(loss)
        found = checkpoint.Checkpoint(state.step, state.tensors(), state.facts())
        checkpoint.save(store, f"after/{state.step}", HOLDER, found)

    whole = train(recipe, config.data, steps, fresh(recipe, config.data), keep)
    assert whole.step == STEPS
    for after in range(1, STEPS + 1):
        found = checkpoint.latest(store, f"after/{after}", pytest.fail)
        assert found is not None
        assert found.step == after
        # A network of another key: whatever is not restored shows.
        state = fresh(recipe, config.data, KEY + after)
        state.load(found.step, found.tensors, found.facts)
        rest: list[float] = []
        train(recipe, config.data, steps, state, lambda _, loss, rest=rest: rest.append(loss))
        assert rest == losses[after:], f"resumed after step {after}"
        assert differing(state, whole) == [], f"resumed after step {after}"
        assert state.facts() == whole.facts()


def test_a_resume_that_forgot_the_step_would_show(config: Config, steps: Steps) -> None:
    recipe = recipe_of(config)
    held: dict[str, Any] = {}

    def keep(state: TrainState, loss: float) -> None:
        if state.step == 4:
            held.update(tensors={name: it.clone() for name, it in state.tensors().items()}, facts=state.facts())

    whole = train(recipe, config.data, steps, fresh(recipe, config.data), keep)
    state = fresh(recipe, config.data)
    state.load(5, **held)
    assert differing(train(recipe, config.data, steps, state), whole)


def test_the_same_training_twice_is_the_same_bit_for_bit(config: Config, steps: Steps) -> None:
    recipe = recipe_of(config)
    runs = [train(recipe, config.data, steps, fresh(recipe, config.data)) for _ in range(2)]
    assert differing(*runs) == []


def test_a_loader_process_changes_nothing(config: Config, steps: Steps) -> None:
    recipe = recipe_of(config)
    runs = [train(recipe, config.data, steps, fresh(recipe, config.data), loaders=loaders) for loaders in (0, 1)]
    assert differing(*runs) == []


def test_a_finished_training_takes_no_step(config: Config, steps: Steps) -> None:
    recipe = recipe_of(config)
    state = fresh(recipe, config.data)
    state.step = STEPS
    train(recipe, config.data, steps, state, lambda *_: pytest.fail("a step was taken"))


def test_every_step_has_its_learning_rate(config: Config, steps: Steps) -> None:
    recipe = recipe_of(config, optimizer={"lr": 0.4, "warmup_steps": 4, "schedule": "constant"})
    rates: list[float] = []
    state = fresh(recipe, config.data)
    train(recipe, config.data, steps, state, lambda it, _: rates.append(it.kept.optimizer.param_groups[0]["lr"]))
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.4, 0.4, 0.4])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_small_problem_is_learned(config: Config, steps: Steps, precision: str) -> None:
    quiet = {"augment": "affine", "magnitude": 0.2, "flip": False}
    model = {**config.student.model.model_dump(), "dropout": 0.0, "drop_path": 0.0}
    rate = {"lr": 0.1, "warmup_steps": 5}
    recipe = recipe_of(config, steps=50, optimizer=rate, precision=precision, noise=quiet, model=model)
    losses: list[float] = []
    state = fresh(recipe, config.data)
    train(recipe, config.data, steps, state, lambda _, loss: losses.append(loss))
    assert sum(losses[:2]) / 2 > 1
    assert sum(losses[-10:]) / 10 < 0.65, losses[-10:]  # 0.43 is the entropy of the targets
    pixels = (steps[0].images.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25
    with torch.inference_mode():
        right = state.result.eval()(pixels).argmax(1) == steps[0].targets.argmax(1)
    assert right.float().mean() > 0.9


def test_a_score_comes_every_so_many_steps_and_after_the_last(config: Config, steps: Steps) -> None:
    recipe = recipe_of(config, eval_steps=3)
    state = fresh(recipe, config.data)
    fit(NoisyStudent(recipe), config.data, steps, state, Worker(CPU, KEY), lambda *_: None, lambda network: 0.5)
    assert state.scores == [(3, 0.5), (6, 0.5), (8, 0.5)]
    assert not state.best, "without patience the last weights are the result"


def test_patience_ends_a_training_and_keeps_the_weights_of_the_first_best_score(config: Config, steps: Steps) -> None:
    recipe = recipe_of(config, eval_steps=1, patience=2)
    scores = iter([0.5, 0.75, 0.75, 0.7])
    held: dict[int, TrainState] = {}

    def keep(state: TrainState, loss: float) -> None:
        held[state.step] = copy.deepcopy(state)

    state = fresh(recipe, config.data)
    fit(NoisyStudent(recipe), config.data, steps, state, Worker(CPU, KEY), keep, lambda network: next(scores))
    assert (state.step, state.best_score) == (4, (2, 0.75))
    assert held[4].scores == state.scores, "what is saved after a step knows its score"
    train(recipe, config.data, steps, state, lambda *_: pytest.fail("it had ended"))
    state.take_best()
    second = held[2].result.state_dict()
    assert all(torch.equal(it, second[name]) for name, it in state.result.state_dict().items())


def test_a_worker_that_is_told_to_leave_goes_after_the_step_and_nothing_is_lost(config: Config, steps: Steps) -> None:
    recipe = recipe_of(config)
    whole = train(recipe, config.data, steps, fresh(recipe, config.data))
    state = fresh(recipe, config.data)
    saved: list[int] = []
    worker = Worker(CPU, KEY, told=lambda: state.step == 3)
    with pytest.raises(LeavingError, match="told to leave at step 4"):
        fit(NoisyStudent(recipe), config.data, steps, state, worker, lambda it, _: saved.append(it.step))
    assert saved == [1, 2, 3, 4]
    assert differing(train(recipe, config.data, steps, state), whole) == []


def test_one_that_is_told_at_the_last_step_has_nothing_left_to_do(config: Config, steps: Steps) -> None:
    recipe = recipe_of(config)
    state = fresh(recipe, config.data)
    worker = Worker(CPU, KEY, told=lambda: state.step == STEPS - 1)
    fit(NoisyStudent(recipe), config.data, steps, state, worker, lambda *_: None)
    assert state.step == STEPS
