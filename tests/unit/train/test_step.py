import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import tiny_training

from ray_ns.config import Config, Student, Training
from ray_ns.errors import ResumableError
from ray_ns.methods.objectives import NoisyStudent, objective_of
from ray_ns.models.batch_norm import share_statistics
from ray_ns.train.data import Batch, batches
from ray_ns.train.objective import Agree, Source
from ray_ns.train.state import TrainState
from ray_ns.train.step import NotFiniteError, Piece, Share, Step

CPU = torch.device("cpu")
Made = Callable[..., tuple[Step, TrainState]]


@pytest.fixture
def made(config: Config) -> Made:
    """A step and a fresh state of the student's recipe with some settings changed."""

    def step(
        rank: int = 0, recipe: Training | None = None, microbatch: int | None = None, **changes: object
    ) -> tuple[Step, TrainState]:
        recipe = recipe or Student.model_validate({**config.student.model_dump(), **changes})
        objective = objective_of(recipe, recipe.batch, isinstance(recipe, Student))
        state = TrainState.fresh(objective, config.data, 1, CPU)
        return Step(objective, config.data, 1, CPU, rank, microbatch), state

    return step


@pytest.fixture
def batch() -> Batch:
    torch.manual_seed(3)
    images = torch.randint(0, 256, (12, 16, 16, 1), dtype=torch.uint8)
    return Batch(images, torch.softmax(torch.randn(12, 3), 1), (4, 8))


def poisoned(batch: Batch, value: float) -> Batch:
    targets = batch.targets.clone()
    targets[2, 1] = value
    return Batch(batch.images, targets, batch.counts)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_before_the_update(made: Made, batch: Batch, value: float) -> None:
    step, state = made()
    for _ in range(2):
        step(state, batch)
    before = {name: tensor.clone() for name, tensor in state.tensors().items()}
    with pytest.raises(
        ResumableError, match=r"loss of worker 0 is not finite at step 2; nothing was updated"
    ) as caught:
        step(state, poisoned(batch, value))
    assert "Lower student.optimizer.lr, or lengthen student.optimizer.warmup_steps." in str(caught.value)
    after = state.tensors()
    assert state.step == 2
    weights = dict(state.kept.network.named_parameters())
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert not [name for name in changed if name.removeprefix("network/") in weights], changed
    assert not [name for name in changed if not name.startswith("network/")], changed


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_stops_before_the_update(made: Made, batch: Batch, value: float) -> None:
    step, state = made()
    step(state, batch)
    before = {name: weight.detach().clone() for name, weight in state.kept.network.named_parameters()}
    first = next(state.kept.network.parameters())
    first.register_hook(lambda gradient: torch.full_like(gradient, value))
    with pytest.raises(ResumableError, match="step 1"):
        step(state, batch)
    assert state.step == 1
    assert all(torch.equal(before[name], weight) for name, weight in state.kept.network.named_parameters())


def test_a_step_draws_only_from_its_key_step_and_rank(made: Made, batch: Batch) -> None:
    results = []
    for noise_before in (11, 12):
        step, state = made()
        torch.manual_seed(noise_before)
        results.append((step(state, batch), step(state, batch), state.tensors()))
    assert results[0][:2] == results[1][:2]
    assert all(torch.equal(results[0][2][name], tensor) for name, tensor in results[1][2].items())
    other, state = made(rank=1)
    assert other(state, batch) != results[0][0]


def test_every_step_is_noised_anew(made: Made, batch: Batch) -> None:
    step, state = made(optimizer={"lr": 1e-12})
    losses = [step(state, batch) for _ in range(4)]
    assert len(set(losses)) == 4
    assert state.step == 4


def test_without_noise_every_step_sees_the_same(made: Made, batch: Batch, config: Config) -> None:
    model = {**config.student.model.model_dump(), "dropout": 0.0, "drop_path": 0.0}
    step, state = made(model=model, noise={"augment": "none"}, optimizer={"lr": 1e-12})
    assert step(state, batch) == pytest.approx(step(state, batch), abs=1e-6)


def test_the_loss_is_normalised_as_the_recipe_says(made: Made, batch: Batch, config: Config) -> None:
    losses = {}
    for kind in ("mean", "sum"):
        step, state = made(loss=kind)
        losses[kind] = step(state, batch)
    assert losses["sum"] == pytest.approx(3 * losses["mean"], rel=1e-5)
    step, state = made(recipe=Training.model_validate(config.teacher.model_dump()))
    labelled = Batch(batch.images, batch.targets, (12,))
    assert step(state, labelled) == pytest.approx(losses["mean"], rel=1e-5)


def seen(step: Step, state: TrainState, batch: Batch) -> torch.Tensor:
    """The pixels that go through the network, (B, 1, 16, 16), in the batch's order."""
    pixels: list[torch.Tensor] = []
    state.kept.network.register_forward_pre_hook(lambda _, inputs: pixels.append(inputs[0].detach().clone()))
    step(state, batch)
    found = torch.empty_like(torch.cat(pixels))
    for number, some in enumerate(pixels):
        found[number :: len(pixels)] = some
    return found


@pytest.mark.parametrize("microbatch", [None, 5])
def test_input_noise_may_be_taken_from_pseudo_labelled_images_alone(
    made: Made, batch: Batch, config: Config, microbatch: int | None
) -> None:
    noised = seen(*made(microbatch=microbatch), batch)
    spared = seen(*made(microbatch=microbatch, pseudo_noise={"input": False}), batch)
    assert torch.equal(noised[:4], spared[:4]), "labelled images are noised as before"
    plain = batch.images.permute(0, 3, 1, 2).float() / 255
    torch.testing.assert_close(spared[4:], (plain[4:] - config.data.mean[0]) / config.data.std[0])
    assert all(not torch.equal(one, other) for one, other in zip(noised[4:], spared[4:], strict=True))


def test_an_image_has_its_number_whatever_the_number_of_workers_and_loaders(config: Config, tmp_path: Path) -> None:
    def numbers(source: int, step: int, rank: int = 0, world: int = 1, loaders: int = 0, key: int = 1) -> torch.Tensor:
        steps = tiny_training.steps_in(tmp_path, rank=rank, world=world, views=(False, True))
        batch = next(batches(steps, step, step + 1, loaders))
        sources = Source("labelled", 4), Source("selection", 8, (False, True))
        share = Share(batch, sources, {}, None, CPU, lambda it, *_: it, (key, 4, step))
        assert torch.equal(share.uniform(source), share.uniform(source))
        return share.uniform(source)

    for source, many in enumerate((4, 8)):
        whole = numbers(source, 2)
        assert whole.dtype == torch.float64
        assert whole.shape == (many,)
        assert bool(((whole >= 0) & (whole < 1)).all())
        for world in (2, 4):
            assert torch.equal(torch.cat([numbers(source, 2, rank, world) for rank in range(world)]), whole)
        assert torch.equal(numbers(source, 2, loaders=2), whole)
        for other in (numbers(source, 3), numbers(source, 2, key=2), numbers(1, 2)[:4] if source == 0 else whole + 1):
            assert not torch.isin(other, whole).any()
    drawn = Share(
        *(Batch(torch.zeros(100_000, 1), torch.zeros(0), (100_000,)), [Source("labelled", 100_000)], {}, None, CPU),
        *(lambda it, *_: it, (5, 4, 0)),
    ).uniform(0)
    assert float(drawn.mean()) == pytest.approx(0.5, abs=0.005)
    assert float(drawn.var()) == pytest.approx(1 / 12, abs=0.001)


def test_beside_a_plain_view_the_noised_one_is_what_it_would_be_alone(made: Made, batch: Batch, config: Config) -> None:
    @dataclass(frozen=True)
    class Seen:
        """Notes what it sees of labelled images, and of selected ones in some views."""

        views: tuple[bool, ...]
        recipe: Student = config.student
        keeps: str = "student"

        def networks(self) -> dict[str, Training]:
            return {"student": self.recipe}

        def sources(self) -> tuple[Source, ...]:
            return Source("labelled", 4), Source("selection", 8, self.views)

        def step(self, state: TrainState, share: Share, agree: Agree) -> float:
            pieces.append(share.whole())
            return 0.0

    pieces: list[Piece] = []
    for views in ((True,), (False, True), (True, False)):
        images = torch.cat([batch.images, batch.images[4:]])[: 4 + 8 * len(views)]
        objective = Seen(views)
        step = Step(objective, config.data, 1, CPU, 0)
        step(TrainState.fresh(objective, config.data, 1, CPU), Batch(images, images, (4, *[8] * len(views))))
    alone, after, before = (piece.pixels for piece in pieces)
    assert torch.equal(torch.cat([after[:4], after[12:]]), alone)
    assert torch.equal(before[:12], alone)
    plain = (batch.images[4:].permute(0, 3, 1, 2).float() / 255 - config.data.mean[0]) / config.data.std[0]
    torch.testing.assert_close(after[4:12], plain)
    torch.testing.assert_close(before[12:], plain)
    assert pieces[1].pseudo.tolist() == [False] * 4 + [True] * 16
    small = Step(Seen((True,)), config.data, 1, CPU, 0, microbatch=5)
    with pytest.raises(ValueError, match="12 images comes in 3 microbatches"):
        small(TrainState.fresh(Seen((True,)), config.data, 1, CPU), batch)


@pytest.mark.parametrize("microbatch", [None, 5])
@pytest.mark.parametrize("noise", ["dropout", "drop_path"])
def test_noise_of_the_network_may_be_taken_from_pseudo_labelled_images_alone(
    made: Made, batch: Batch, config: Config, noise: str, microbatch: int | None
) -> None:
    rates = {"dropout": 0.0, "drop_path": 0.0, noise: 0.5}
    model = {**config.student.model.model_dump(), **rates, "args": STILL["model"]["args"]}
    changes = {"model": model, "noise": {"augment": "none"}, "microbatch": microbatch}
    logits = [logits_of(*made(**changes, **more), batch) for more in ({}, {"pseudo_noise": {noise: False}})]
    clean = logits_of(*made(**{**changes, "model": {**model, noise: 0.0}}), batch)
    torch.testing.assert_close(logits[0][:4], logits[1][:4])
    torch.testing.assert_close(logits[1][4:], clean[4:])
    assert not torch.allclose(logits[0][4:], clean[4:], rtol=1e-3)


def logits_of(step: Step, state: TrainState, batch: Batch) -> torch.Tensor:
    """What the network says in a step, (B, 3), in the batch's order; no block begins at 0."""
    said: list[torch.Tensor] = []
    for name, weight in state.kept.network.named_parameters():
        if name.endswith("bn2.weight"):
            torch.nn.init.ones_(weight)
    state.kept.network.register_forward_hook(lambda _, inputs, output: said.append(output.detach().clone()))
    step(state, batch)
    found = torch.empty_like(torch.cat(said))
    for number, some in enumerate(said):
        found[number :: len(said)] = some
    return found


@pytest.mark.parametrize("ema", [None, 0.9])
def test_weights_and_average_move(made: Made, batch: Batch, ema: float | None) -> None:
    step, state = made(ema_decay=ema)
    before = {name: weight.detach().clone() for name, weight in state.result.named_parameters()}
    step(state, batch)
    step(state, batch)
    moved = [not torch.equal(before[name], weight) for name, weight in state.result.named_parameters()]
    assert all(moved)
    assert (state.kept.average is None) == (ema is None)


def test_precision_is_the_recipes(made: Made, batch: Batch) -> None:
    losses = []
    for precision in ("float32", "bfloat16"):
        step, state = made(precision=precision)
        losses.append(step(state, batch))
        assert {weight.dtype for weight in state.kept.network.parameters()} == {torch.float32}
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


def test_depthwise_convolutions_train_by_way_of_float32(made: Made, batch: Batch) -> None:
    step, state = made(precision="bfloat16", model={"name": "test_efficientnet"})
    same: list[bool] = []

    def compare(layer: Any, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        with torch.autocast("cpu", enabled=False):
            same.append(torch.equal(output, layer.forward(inputs[0].float()).bfloat16()))

    for module in state.kept.network.modules():
        if isinstance(module, torch.nn.Conv2d) and module.groups > 1:
            module.register_forward_hook(compare)
    step(state, batch)
    assert same
    assert all(same)


# Without dropout, input noise and batch norm every image's gradient is its own.
STILL = {
    "model": {"name": "resnet10t", "args": {"channels": [8, 8, 16, 16], "stem_width": 8, "norm_layer": "groupnorm1"}},
    "noise": {"augment": "none"},
    "optimizer": {"lr": 0.1, "weight_decay": 0.0},
}


@pytest.mark.parametrize("kind", ["mean", "sum"])
@pytest.mark.parametrize("microbatch", [1, 5, 7, 11, 12, 100])
def test_the_gradient_is_that_of_the_whole_batch_whatever_the_microbatch(
    made: Made, batch: Batch, kind: str, microbatch: int
) -> None:
    step, state = made(loss=kind, **STILL)
    wanted = step(state, batch)
    small, other = made(loss=kind, microbatch=microbatch, **STILL)
    assert small(other, batch) == pytest.approx(wanted, rel=1e-5)
    for (name, one), two in zip(state.kept.network.named_parameters(), other.kept.network.parameters(), strict=True):
        assert one.grad is not None
        assert two.grad is not None
        scale = float(one.grad.abs().max())
        torch.testing.assert_close(two.grad, one.grad, rtol=1e-3, atol=1e-4 * scale, msg=name)


def test_no_more_images_than_a_microbatch_go_through_at_once(made: Made, batch: Batch) -> None:
    step, state = made(microbatch=5)
    sizes: list[int] = []
    state.kept.network.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    step(state, batch)
    assert sizes == [4, 4, 4]


def test_the_same_microbatch_gives_the_same_bits(made: Made, batch: Batch) -> None:
    runs = []
    for _ in range(2):
        step, state = made(microbatch=5)
        runs.append(([step(state, batch) for _ in range(3)], state.tensors()))
    assert runs[0][0] == runs[1][0]
    assert all(torch.equal(tensor, runs[1][1][name]) for name, tensor in runs[0][1].items())


def test_what_is_not_finite_in_one_microbatch_stops_the_step(made: Made, batch: Batch) -> None:
    step, state = made(microbatch=4)
    with pytest.raises(NotFiniteError, match="loss of worker 0"):
        step(state, poisoned(batch, math.nan))
    assert state.step == 0


@dataclass(frozen=True)
class Case:
    """A few steps of ``world`` workers. ``poison``: the last one is told to leave and has poisoned images at step 2.

    ``norm``: of the network; the workers are one group of batch norm, where it is that. ``sam``: rho of sharpness-aware
    minimisation.
    """

    world: int
    microbatch: int | None = None
    poison: bool = False
    norm: str = "groupnorm1"
    sam: float = 0.0


def workers_of(case: Case, config: Config, data: Path, out: Any) -> None:
    import torch.multiprocessing as mp

    mp.start_processes(one_of, (case, config, data, out), case.world, start_method="fork")


def one_of(rank: int, case: Case, config: Config, data: Path, out: Any) -> None:
    world, poison = case.world, case.poison
    torch.set_num_threads(1)
    os.environ.update(GLOO_SOCKET_IFNAME="lo")
    torch.distributed.init_process_group("gloo", init_method=f"file://{data}/{case}", rank=rank, world_size=world)
    still = {**STILL, "model": {**STILL["model"], "args": {**STILL["model"]["args"], "norm_layer": case.norm}}}
    recipe = Student.model_validate({**config.student.model_dump(), **still, "ema_decay": 0.9})
    recipe = recipe.model_copy(update={"optimizer": recipe.optimizer.model_copy(update={"sam": case.sam})})
    state = TrainState.fresh(NoisyStudent(recipe), config.data, 1, CPU, frozen=2 if case.norm == "batchnorm" else 0)
    if world > 1:
        if case.norm == "batchnorm":
            share_statistics(state.kept.network, torch.distributed.new_subgroups(world)[0])
        state.kept.wrapped = torch.nn.parallel.DistributedDataParallel(state.kept.network)

    def told() -> bool:
        return poison and state.step == 2 and rank == world - 1

    step = Step(NoisyStudent(recipe), config.data, 1, CPU, rank, case.microbatch, told)
    steps = tiny_training.steps_in(data, rank=rank, world=world)
    losses: list[float] = []
    stopped = ""
    try:
        for batch in batches(steps, 0, 4, 0):
            bad = poison and state.step == 2 and rank == world - 1
            losses.append(step(state, poisoned(batch, math.nan) if bad else batch))
    except NotFiniteError as error:
        stopped = str(error)
    weights = {name: tensor.numpy() for name, tensor in state.tensors().items()}
    out.put((rank, losses, stopped, state.step, weights, step.leaving))


def run_workers(case: Case, config: Config, data: Path) -> list[tuple[Any, ...]]:
    forks = tiny_training.forks()
    out = forks.Queue()
    process = forks.Process(target=workers_of, args=(case, config, data, out))
    process.start()
    ends = sorted((out.get(timeout=100) for _ in range(case.world)), key=lambda it: it[0])
    process.join(100)
    assert process.exitcode == 0
    return ends


def test_a_nan_on_one_of_two_workers_stops_both_before_the_update_and_both_leave_when_one_is_told(
    config: Config, tmp_path: Path
) -> None:
    tiny_training.steps_in(tmp_path)
    first, second = run_workers(Case(2, poison=True), config, tmp_path)
    for _, losses, stopped, step, _, leaving in (first, second):
        assert leaving, "what one is told all know"
        assert "loss of worker 1 is not finite at step 2; nothing was updated" in stopped
        assert (len(losses), step) == (2, 2)
    for name, tensor in first[4].items():
        np.testing.assert_array_equal(tensor, second[4][name], err_msg=name)


@pytest.mark.parametrize(
    ("norm", "microbatch", "sam"),
    [("groupnorm1", None, 0.0), ("groupnorm1", 2, 0.0), ("batchnorm", None, 0.0), ("groupnorm1", 2, 0.1)],
)
def test_two_workers_learn_what_one_does(
    config: Config, tmp_path: Path, norm: str, microbatch: int | None, sam: float
) -> None:
    tiny_training.steps_in(tmp_path)
    (alone,) = run_workers(Case(1, norm=norm, sam=sam), config, tmp_path)
    first, second = run_workers(Case(2, microbatch, norm=norm, sam=sam), config, tmp_path)
    assert first[1] == second[1], "the loss is the global batch's, on every worker"
    assert first[1] == pytest.approx(alone[1], rel=1e-4)
    for name, tensor in alone[4].items():
        np.testing.assert_allclose(first[4][name], tensor, rtol=1e-2, atol=1e-4, err_msg=name)


def test_a_group_of_batch_norm_goes_through_its_microbatches_together(config: Config, tmp_path: Path) -> None:
    tiny_training.steps_in(tmp_path)
    first, second = run_workers(Case(2, 3, norm="batchnorm"), config, tmp_path)
    assert first[1] == second[1]
    for name, tensor in first[4].items():
        np.testing.assert_array_equal(tensor, second[4][name], err_msg=name)


def test_what_is_frozen_keeps_its_weights_and_its_running_figures(batch: Batch, config: Config) -> None:
    state = TrainState.fresh(NoisyStudent(config.student), config.data, 1, CPU, frozen=2)
    before = {name: it.clone() for name, it in state.kept.network.state_dict().items()}
    frozen = {name for name, it in state.kept.network.named_parameters() if not it.requires_grad}
    step = Step(NoisyStudent(config.student), config.data, 1, CPU, 0)
    for _ in range(3):
        step(state, batch)
    changed = {name for name, it in state.kept.network.state_dict().items() if not torch.equal(before[name], it)}
    assert "bn1.weight" in frozen
    assert not changed & (frozen | {"bn1.running_mean", "bn1.num_batches_tracked"})
    assert {"layer4.0.bn1.running_mean", "fc.weight"} <= changed
