"""An objective with two networks: it trains, is killed and goes on, without a word about it outside its own class."""

import json
import math
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load, save
from support import tiny_training
from support.tiny_training import EVERY, STEPS, Kill, end_of, in_a_process

from ray_ns.config import Config, Student, Training
from ray_ns.models.untouched import untouched
from ray_ns.store import checkpoint
from ray_ns.store.objects import LocalStore
from ray_ns.train.data import Batch, batches
from ray_ns.train.fit import LeavingError, Worker, fit
from ray_ns.train.objective import Agree, NetPlan, Source
from ray_ns.train.state import TrainState
from ray_ns.train.step import NotFiniteError, Piece, Share, Step

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Following:
    """A student learns what a teacher says; the teacher learns what is true, the harder the further they are apart."""

    recipe: Student
    keeps: ClassVar[str] = "student"

    def networks(self) -> Mapping[str, Training | NetPlan]:
        teacher = {"ema_decay": None, "optimizer": {"name": "adamw", "lr": 0.01, "warmup_steps": 2}}
        return {"teacher": Training.model_validate({**common(self.recipe), **teacher}), "student": self.recipe}

    def sources(self) -> tuple[Source, ...]:
        return Source("labelled", self.recipe.batch), Source("selection", self.recipe.batch * self.recipe.ratio)

    def step(self, state: TrainState, share: Share, agree: Agree) -> float:
        teacher, student = state.nets["teacher"], state.nets["student"]
        harder = 1 + state.scalars.get("apart", 0.0)

        def follow(piece: Piece) -> torch.Tensor:
            with torch.no_grad():
                said = teacher(piece.pixels).softmax(1)
            return piece.part * F.cross_entropy(student(piece.pixels), said)

        def lead(piece: Piece) -> torch.Tensor:
            return piece.part * harder * F.cross_entropy(teacher(piece.pixels), piece.targets)

        followed = share.backward(follow)
        loss = agree(followed, student)["loss"]  # the student has moved when the teacher goes forward
        state.scalars["apart"] = agree(share.backward(lead), teacher, apart=followed)["apart"] / 2 + harder / 8
        return loss


class Together(Following):
    """As above, and both are updated at once."""

    def step(self, state: TrainState, share: Share, agree: Agree) -> float:
        teacher, student = state.nets["teacher"], state.nets["student"]

        def both(piece: Piece) -> torch.Tensor:
            said = teacher(piece.pixels)
            return piece.part * (
                F.cross_entropy(said, piece.targets) + F.cross_entropy(student(piece.pixels), said.detach().softmax(1))
            )

        return agree(share.backward(both), teacher, student)["loss"]


class Feedback(Following):
    """A student that waits learns from labels drawn of what a teacher and an adjuster say; they learn from how it did.

    It uses what an objective may: two views, draws by image, passes that leave no trace, means without an update.
    """

    def networks(self) -> Mapping[str, Training | NetPlan]:
        teacher, recipe = super().networks()["teacher"], self.recipe.model_copy(update={"ema_decay": 0.9})
        small = Training.model_validate({**common(self.recipe), "optimizer": {"lr": 0.1, "clip": 0.1}})
        adjuster = NetPlan(small, made=lambda data: torch.nn.Linear(data.classes, data.classes))
        return {"teacher": teacher, "adjuster": adjuster, "student": NetPlan(recipe, delay=4)}

    def sources(self) -> tuple[Source, ...]:
        labelled, selection = super().sources()
        return labelled, Source("selection", selection.per_step, (False, True))

    def step(self, state: TrainState, share: Share, agree: Agree) -> float:
        teacher, student, adjuster = (state.nets[name] for name in ("teacher", "student", "adjuster"))
        piece, (labelled, each, _) = share.whole(), share.counts
        images, truth, noised = piece.pixels[:labelled], piece.targets[:labelled], piece.pixels[-each:]
        logits = teacher(piece.pixels[:-each])
        adjusted = adjuster(logits[labelled:].detach())
        drawn = (adjusted.detach().softmax(1).cumsum(1) < share.uniform(1)[:, None]).sum(1).clamp(max=2)
        with untouched(student.network) as draws, torch.no_grad():
            before = F.cross_entropy(student(images), truth)
        loss = F.cross_entropy(student(noised), drawn)
        loss.backward()
        found = agree(loss, student)["loss"]
        with untouched(student.network, draws), torch.no_grad():
            after = F.cross_entropy(student(images), truth)
        better = agree(before - after, after=after)
        state.scalars["after"] = better["after"]
        state.scalars["better"] = 0.9 * state.scalars.get("better", 0.0) + better["loss"]
        taught = F.cross_entropy(logits[:labelled], truth) + F.cross_entropy(logits[labelled:], drawn)
        taught = taught + (1 + state.scalars["better"]) * F.cross_entropy(adjusted, drawn)
        taught.backward()
        agree(taught, teacher, adjuster)
        return found


def common(recipe: Training) -> dict[str, Any]:
    return {
        name: value for name, value in recipe.model_dump(exclude_unset=True).items() if name in Training.model_fields
    }


@pytest.fixture
def batch() -> Batch:
    torch.manual_seed(3)
    images = torch.randint(0, 256, (12, 16, 16, 1), dtype=torch.uint8)
    return Batch(images, torch.softmax(torch.randn(12, 3), 1), (4, 8))


def made(config: Config, kind: type[Following] = Following) -> tuple[Step, TrainState]:
    objective = kind(config.student)
    return Step(objective, config.data, 1, CPU, 0), TrainState.fresh(objective, config.data, 1, CPU)


def test_two_networks_are_killed_and_go_on_bit_for_bit(config: Config, tmp_path: Path) -> None:
    data = tmp_path / "data"
    tiny_training.steps_in(data)
    assert in_a_process(tmp_path / "whole", data, config, None, Following) == 0
    tensors, noted = end_of(tmp_path / "whole")
    assert {name.split("/")[0] for name in tensors} == {"network", "ema", "optimizer", "nets"}
    assert {"/".join(name.split("/")[:3]) for name in tensors if name.startswith("nets/")} == {
        "nets/teacher/network",
        "nets/teacher/optimizer",
    }
    assert noted["facts"]["scalars"]["apart"] > 0
    newest = (STEPS - 1) // EVERY * EVERY
    last = Kill(0, rf"checkpoints/.*/{newest:09d}-.*json", 1, "after")
    for kill in (Kill(8), Kill(0, r"checkpoints/.*json", 2, "before"), last):
        assert in_a_process(tmp_path / "killed", data, config, kill, Following) == -signal.SIGKILL
    store = LocalStore(tmp_path / "killed")
    found = checkpoint.latest(store, tiny_training.PLACE, pytest.fail)
    assert found is not None
    assert found.facts["optimizer"]["scalars"]["apart"] > 0
    assert in_a_process(tmp_path / "killed", data, config, None, Following) == 0
    again, told = end_of(tmp_path / "killed")
    assert told["from"] == found.step == newest
    assert again.keys() == tensors.keys()
    assert not [name for name, tensor in tensors.items() if not torch.equal(tensor, again[name])]
    assert (told["losses"], told["facts"]) == (noted["losses"], noted["facts"])


def test_both_networks_begin_apart_and_move(config: Config, batch: Batch) -> None:
    step, state = made(config)
    before = state.tensors()
    pairs = [(before[name], before[f"nets/teacher/{name}"]) for name in before if name.startswith("network/")]
    assert any(not torch.equal(*pair) for pair in pairs)
    for _ in range(2):
        step(state, batch)
    after = state.tensors()
    for name, net in state.nets.items():
        place = "network" if name == "student" else "nets/teacher/network"
        weights = [f"{place}/{it}" for it, _ in net.network.named_parameters()]
        assert all(not torch.equal(before[it], after[it]) for it in weights)
    assert state.nets["teacher"].average is None
    assert state.result is state.nets["student"].average.module  # type: ignore[union-attr]


def test_each_network_has_its_own_learning_rate(config: Config, tmp_path: Path) -> None:
    objective = Following(config.student.model_copy(update={"steps": 4}))
    state = TrainState.fresh(objective, config.data, 1, CPU)
    rates: list[float] = []

    def note(state: TrainState, loss: float) -> None:
        rates.append(state.nets["teacher"].optimizer.param_groups[0]["lr"])

    fit(objective, config.data, tiny_training.steps_in(tmp_path), state, Worker(CPU, 1), note)
    assert rates == pytest.approx([0.0, 0.005, 0.01, 0.005])  # warm-up over 2 steps, then half a cosine over 2


def unlike(before: Mapping[str, torch.Tensor], state: TrainState) -> set[str]:
    """Weights and optimisers' tensors that are no longer what they were."""
    buffers = {name for net in state.nets.values() for name, _ in net.network.named_buffers()}
    after = state.tensors()
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    return {name for name in changed if not any(name.endswith(f"network/{it}") for it in buffers)}


@pytest.mark.parametrize("whose", ["teacher", "student"])
def test_a_gradient_of_either_that_is_not_finite_stops_before_any_update(
    config: Config, batch: Batch, whose: str
) -> None:
    step, state = made(config, Together)
    step(state, batch)
    before = state.tensors()
    first = next(state.nets[whose].network.parameters())
    first.register_hook(lambda gradient: torch.full_like(gradient, math.nan))
    with pytest.raises(NotFiniteError, match="gradients is not finite at step 1; nothing was updated") as caught:
        step(state, batch)
    assert str(caught.value).startswith(f"{whose}: the sum")
    assert f"Lower {whose}.optimizer.lr, or lengthen {whose}.optimizer.warmup_steps." in str(caught.value)
    assert state.step == 1
    assert not unlike(before, state)


def test_what_is_not_finite_after_an_update_says_whose_it_was(config: Config, batch: Batch) -> None:
    step, state = made(config)  # the student is updated before the teacher's gradients are agreed on
    first = next(state.nets["teacher"].network.parameters())
    first.register_hook(lambda gradient: torch.full_like(gradient, math.nan))
    with pytest.raises(NotFiniteError, match=r"^teacher: ") as caught:
        step(state, batch)
    assert "nothing was updated" not in str(caught.value)
    assert "student had been updated in the same step, of which nothing is saved" in str(caught.value)
    assert "Lower teacher.optimizer.lr or student.optimizer.lr, or lengthen teacher.optimizer." in str(caught.value)


def test_a_mean_that_is_not_finite_and_of_no_network_is_of_those_updated_before_it(
    config: Config, batch: Batch
) -> None:
    class Asked(Following):
        def step(self, state: TrainState, share: Share, agree: Agree) -> float:
            agree(share.backward(lambda piece: state.kept(piece.pixels).sum() * 0), state.kept)
            return agree(torch.ones(()), after=torch.tensor(math.nan))["loss"]

    step, state = made(config, Asked)
    with pytest.raises(
        NotFiniteError, match=r"^student: the sum of the workers' after .* Lower student.optimizer.lr, or"
    ):
        step(state, batch)


def test_a_scalar_that_is_not_finite_is_refused_by_its_name(config: Config, batch: Batch) -> None:
    class Lost(Following):
        def step(self, state: TrainState, share: Share, agree: Agree) -> float:
            return agree(torch.ones(()), *state.nets.values(), feedback=torch.tensor(math.inf))["loss"]

    step, state = made(config, Lost)
    before = state.tensors()
    with pytest.raises(NotFiniteError, match=r"^teacher, student: the sum of the workers' feedback is not finite"):
        step(state, batch)
    assert not unlike(before, state)


def test_what_is_taken_up_after_any_of_20_steps_goes_on_bit_for_bit(config: Config, tmp_path: Path) -> None:
    objective = Feedback(config.student.model_copy(update={"steps": STEPS}))
    steps, ends = tiny_training.steps_in(tmp_path, views=(False, True)), []

    def note(state: TrainState, loss: float) -> None:
        ends.append((state.step, save(state.tensors()), json.dumps(state.facts()), loss))

    fit(objective, config.data, steps, TrainState.fresh(objective, config.data, 1, CPU), Worker(CPU, 1), note)
    whole = ends.copy()
    assert len({end[1] for end in whole}) == STEPS
    for after, tensors, facts, _ in whole[:-1]:
        state = TrainState.fresh(objective, config.data, 1 + after, CPU)  # what is not taken up shows
        state.load(after, load(tensors), json.loads(facts))
        with suppress(LeavingError):  # a worker that is always told to leave takes one step
            fit(objective, config.data, steps, state, Worker(CPU, 1, told=lambda: True), note)
        assert len(ends) == STEPS + after
        assert ends[-1] == whole[after], f"taken up after step {after}"


def test_a_network_may_begin_later_and_be_none_of_timms(config: Config, tmp_path: Path) -> None:
    objective = Feedback(config.student)
    state = TrainState.fresh(objective, config.data, 1, CPU)
    assert isinstance(state.nets["adjuster"].network, torch.nn.Linear)
    before, rates, began = state.tensors(), [], []

    def note(state: TrainState, loss: float) -> None:
        rates.append(state.kept.optimizer.param_groups[0]["lr"])
        now = state.tensors()
        weights = [f"network/{name}" for name, _ in state.kept.network.named_parameters()]
        began.append(any(not torch.equal(before[name], now[name]) for name in weights))
        assert not torch.equal(before["nets/adjuster/network/weight"], now["nets/adjuster/network/weight"])

    steps = tiny_training.steps_in(tmp_path, views=(False, True))
    fit(objective, config.data, steps, state, Worker(CPU, 1), note)
    assert rates == pytest.approx([0.0] * 5 + [0.025, 0.05, 0.025])  # warm-up over 2 steps, then half a cosine over 2
    assert began == [False] * 5 + [True] * 3


STILL = {
    "model": {"name": "resnet10t", "args": {"channels": [8, 8, 16, 16], "stem_width": 8, "norm_layer": "groupnorm1"}},
    "noise": {"augment": "none"},
    "optimizer": {"lr": 0.1, "weight_decay": 0.0},
}


@dataclass(frozen=True)
class Case:
    """Four steps of ``world`` workers."""

    world: int
    kind: type[Following]
    microbatch: int | None = None


def workers_of(case: Case, config: Config, data: Path, out: Any) -> None:
    import torch.multiprocessing as mp

    mp.start_processes(one_of, (case, config, data, out), case.world, start_method="fork")


def one_of(rank: int, case: Case, config: Config, data: Path, out: Any) -> None:
    torch.set_num_threads(1)
    os.environ.update(GLOO_SOCKET_IFNAME="lo")
    meet = f"file://{data}/meet-{case.world}"
    torch.distributed.init_process_group("gloo", init_method=meet, rank=rank, world_size=case.world)
    objective = case.kind(
        Student.model_validate({**config.student.model_dump(exclude_unset=True), **STILL, "ema_decay": 0.9})
    )
    state = TrainState.fresh(objective, config.data, 1, CPU)
    for net in state.nets.values():
        if case.world > 1:
            net.wrapped = torch.nn.parallel.DistributedDataParallel(net.network)
    step = Step(objective, config.data, 1, CPU, rank, case.microbatch)
    steps = tiny_training.steps_in(data, rank=rank, world=case.world, views=objective.sources()[1].views)
    losses = [step(state, batch) for batch in batches(steps, 0, 4, 0)]
    out.put((rank, losses, state.scalars, {name: tensor.numpy() for name, tensor in state.tensors().items()}))


@pytest.mark.parametrize(("kind", "microbatch"), [(Following, 2), (Feedback, None)])
def test_two_workers_agree_on_losses_and_scalars_and_learn_what_one_does(
    config: Config, tmp_path: Path, kind: type[Following], microbatch: int | None
) -> None:
    tiny_training.steps_in(tmp_path)
    forks, ends = tiny_training.forks(), {}
    for case in (Case(1, kind), Case(2, kind, microbatch)):
        out = forks.Queue()
        process = forks.Process(target=workers_of, args=(case, config, tmp_path, out))
        process.start()
        ends[case.world] = sorted((out.get(timeout=100) for _ in range(case.world)), key=lambda it: it[0])
        process.join(100)
    (_, losses, scalars, weights), (first, second) = ends[1][0], ends[2]
    assert first[1:3] == second[1:3], "losses and scalars are the global batch's, on every worker"
    assert first[1] == pytest.approx(losses, rel=1e-4)
    assert first[2] == pytest.approx(scalars, rel=1e-3)
    for name, tensor in weights.items():
        np.testing.assert_array_equal(first[3][name], second[3][name], err_msg=name)
        np.testing.assert_allclose(first[3][name], tensor, rtol=1e-2, atol=1e-4, err_msg=name)
