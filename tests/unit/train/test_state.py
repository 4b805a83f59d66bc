import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load, save

from ray_ns.config import Config, Data, Student
from ray_ns.methods.objectives import NoisyStudent
from ray_ns.train.state import Net, TrainState

CPU = torch.device("cpu")


@pytest.fixture
def student(config: Config) -> Callable[..., Student]:
    def made(name: str = "sgd", ema: float | None = 0.9) -> Student:
        using = config.student.optimizer.model_copy(update={"name": name})
        return config.student.model_copy(update={"optimizer": using, "ema_decay": ema})

    return made


def fresh(recipe: Student, data: Data, key: int, *begin: Any) -> TrainState:
    return TrainState.fresh(NoisyStudent(recipe), data, key, CPU, *begin)


def turned(state: TrainState, steps: int = 2) -> TrainState:
    """The state after some steps on random images, so that nothing in it is as it began."""
    torch.manual_seed(5)
    for _ in range(steps):
        loss = F.cross_entropy(state.kept.network.train()(torch.randn(4, 1, 16, 16)), torch.tensor([0, 1, 2, 0]))
        state.kept.optimizer.zero_grad()
        loss.backward()
        state.kept.optimizer.step()
        state.step += 1
        if state.kept.average is not None:
            state.kept.average.update(state.kept.network, state.step)
    return state


def test_the_key_decides_the_first_weights(config: Config) -> None:
    one, two, other = (fresh(config.student, config.data, key).tensors() for key in (1, 1, 2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", ["sgd", "adamw", "rmsproptf", "lamb"])
@pytest.mark.parametrize("ema", [None, 0.9])
def test_a_state_comes_back_from_bytes_bit_for_bit(
    config: Config, student: Callable[..., Student], name: str, ema: float | None
) -> None:
    state = turned(fresh(student(name, ema), config.data, 1))
    tensors, facts = load(save(state.tensors())), json.loads(json.dumps(state.facts()))
    back = fresh(student(name, ema), config.data, 2)
    back.load(state.step, tensors, facts)
    assert back.step == 2
    assert back.tensors().keys() == state.tensors().keys()
    assert all(torch.equal(tensor, state.tensors()[key]) for key, tensor in back.tensors().items())
    assert back.facts() == state.facts()
    one, two = turned(state).tensors(), turned(back).tensors()
    assert all(torch.equal(tensor, two[key]) for key, tensor in one.items())


@pytest.mark.parametrize(
    ("name", "slots"), [("sgd", {"momentum_buffer"}), ("adamw", {"step", "exp_avg", "exp_avg_sq"})]
)
def test_tensors_hold_network_average_and_optimiser(
    config: Config, student: Callable[..., Student], name: str, slots: set[str]
) -> None:
    tensors = turned(fresh(student(name), config.data, 1)).tensors()
    assert {key.split("/")[0] for key in tensors} == {"network", "ema", "optimizer"}
    assert {key.split("/")[2] for key in tensors if key.startswith("optimizer/")} == slots
    assert all(tensor.is_contiguous() and not tensor.requires_grad for tensor in tensors.values())


def test_the_result_is_the_average_where_there_is_one(config: Config, student: Callable[..., Student]) -> None:
    plain = fresh(student(ema=None), config.data, 1)
    average = fresh(student(), config.data, 1)
    assert plain.kept.average is None
    assert plain.result is plain.kept.network
    assert average.kept.average is not None
    assert average.result is average.kept.average.module


def test_weights_of_another_shape_are_refused(config: Config) -> None:
    state = turned(fresh(config.student, config.data, 1))
    wider = config.data.model_copy(update={"classes": 5})
    with pytest.raises(RuntimeError, match="size mismatch"):
        fresh(config.student, wider, 1).load(2, state.tensors(), state.facts())


def test_a_student_may_begin_with_another_networks_weights(config: Config) -> None:
    other = fresh(config.student, config.data, 2)
    state = fresh(config.student, config.data, 1, other.kept.network.state_dict())
    assert all(torch.equal(it, other.tensors()[name]) for name, it in state.tensors().items())


def test_frozen_layers_have_no_place_in_the_optimizer(config: Config) -> None:
    state = fresh(config.student, config.data, 1, None, 2)
    held = {id(it) for group in state.kept.optimizer.param_groups for it in group["params"]}
    assert held == {id(it) for it in state.kept.network.parameters() if it.requires_grad}
    assert len(held) < len(list(state.kept.network.parameters()))


def test_the_tensors_are_a_copy_that_later_steps_leave_alone(config: Config, student: Callable[..., Student]) -> None:
    state = turned(fresh(student("adamw"), config.data, 1))
    taken = state.tensors()
    before = {name: tensor.clone() for name, tensor in taken.items()}
    turned(state)
    assert all(torch.equal(taken[name], tensor) for name, tensor in before.items())
    assert not all(torch.equal(before[name], tensor) for name, tensor in state.tensors().items())


def test_scores_and_the_best_weights_come_back(config: Config) -> None:
    state = turned(fresh(config.student, config.data, 1), 1)
    state.score(0.5, keep=True)
    best = {name: it.clone() for name, it in state.result.state_dict().items()}
    turned(state, 1).score(0.5, keep=True)
    back = fresh(config.student, config.data, 2)
    back.load(state.step, load(save(state.tensors())), json.loads(json.dumps(state.facts())))
    assert back.scores == [(1, 0.5), (2, 0.5)]
    assert back.best.keys() == best.keys()
    assert all(torch.equal(it, back.best[name]) for name, it in best.items())


def test_a_checkpoint_of_a_version_that_knew_one_network_is_taken_up(config: Config) -> None:
    state = turned(fresh(config.student, config.data, 1))
    facts = state.facts()
    assert facts.pop("scalars") == facts.pop("nets") == {}
    assert facts.keys() == {"slots", "steps", "scores"}
    back = fresh(config.student, config.data, 2)
    back.scalars["left"] = 1.0
    back.load(2, state.tensors(), facts)
    assert all(torch.equal(tensor, state.tensors()[name]) for name, tensor in back.tensors().items())
    assert back.scalars == {}


@pytest.mark.parametrize(
    ("patience", "scores", "ended"),
    [(None, [0.5, 0.4, 0.3], False), (1, [], False), (2, [0.5, 0.4], False), (2, [0.5, 0.5, 0.4], True)],
)
def test_a_training_ends_when_so_many_scores_were_no_better(
    config: Config, patience: int | None, scores: list[float], ended: bool
) -> None:
    recipe = config.student.model_copy(update={"eval_steps": 1, "patience": patience})
    state = fresh(recipe, config.data, 1)
    for state.step, top1 in enumerate(scores, 1):
        state.score(top1, keep=True)
    assert state.finished(recipe) == ended
    state.step = recipe.steps
    assert state.finished(recipe)


def test_scores_of_a_network_that_waits_end_nothing_and_are_never_the_best(config: Config) -> None:
    recipe = config.student.model_copy(update={"eval_steps": 1, "patience": 2})
    state = fresh(recipe, config.data, 1)
    state.kept.delay = 3
    for state.step, top1 in enumerate([0.9, 0.1, 0.1], 1):
        state.score(top1, keep=True)
        assert not state.finished(recipe)
        assert not state.best
    for state.step, top1 in enumerate([0.4, 0.5, 0.5, 0.3], 4):
        assert not state.finished(recipe)
        state.score(top1, keep=True)
    assert state.finished(recipe)
    assert state.best_score == (5, 0.5)
    assert state.best
    assert [step for step, _ in state.scores] == [1, 2, 3, 4, 5, 6, 7], "the curve has them all"


def moved(config: Config, clip: float | None) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """How far an update at the learning rate 1 moved each weight, and its gradient before."""
    using = {"name": "momentum", "lr": 1.0, "momentum": 0.0, "weight_decay": 0.0, "clip": clip}
    net = fresh(Student.model_validate({**config.student.model_dump(), "optimizer": using}), config.data, 1).kept
    net.begin()
    torch.manual_seed(5)
    F.cross_entropy(net.network(torch.randn(4, 1, 16, 16)), torch.tensor([0, 1, 2, 0])).backward()
    weights = [it for it in net.network.parameters() if it.grad is not None]
    before = [it.detach().clone() for it in weights]
    gradients = [it.grad.clone() for it in weights if it.grad is not None]
    net.update(1)
    return [one - it.detach() for one, it in zip(before, weights, strict=True)], gradients


def test_gradients_longer_than_the_clip_are_cut_to_it_and_others_left_alone(config: Config) -> None:
    free, gradients = moved(config, None)
    norm = float(torch.cat([it.flatten() for it in gradients]).norm())
    cut, same = moved(config, norm / 4)
    assert all(torch.equal(*pair) for pair in zip(same, gradients, strict=True))
    for one, gradient in zip(cut, gradients, strict=True):
        torch.testing.assert_close(one, gradient / 4, rtol=1e-3, atol=1e-6)
    assert all(torch.equal(*pair) for pair in zip(moved(config, 2 * norm)[0], free, strict=True))


@pytest.mark.parametrize("ema_warmup", ["tensorflow", "timm"])
def test_a_network_that_waits_begins_afterwards_as_if_there_had_been_nothing(config: Config, ema_warmup: str) -> None:
    at_once = config.student.optimizer.model_copy(update={"warmup_steps": 0})
    recipe = config.student.model_copy(update={"ema_warmup": ema_warmup, "ema_decay": 0.99, "optimizer": at_once})

    def rates_and_average(delay: int, steps: int) -> tuple[list[float], torch.Tensor]:
        torch.manual_seed(3)
        net = Net(torch.nn.Linear(2, 2), recipe.model_copy(update={"steps": steps}), delay)
        rates = []
        for step in range(steps):
            net.set_rate(step)
            (rate,) = {group["lr"] for group in net.optimizer.param_groups}
            rates.append(rate)
            if step >= delay:
                with torch.no_grad():
                    net.network.weight.add_(step - delay + 1)  # type: ignore[operator,union-attr]
                net.update(step + 1)
        return rates, net.result.weight.detach()  # type: ignore[union-attr,return-value]

    rates, average = rates_and_average(0, 8)
    later, same = rates_and_average(3, 11)
    assert later == [0.0] * 3 + rates
    assert rates[0] > 0
    assert torch.equal(average, same)
