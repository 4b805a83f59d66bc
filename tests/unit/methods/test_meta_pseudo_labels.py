"""Meta Pseudo Labels, its reduced variant and UDA as objectives, step by step on small networks."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support import tiny_training
from support.tiny_training import STEPS, Kill, end_of, in_a_process

from ray_ns.config import Config, MetaPseudoLabels, Method, Student, Training, Uda
from ray_ns.config.methods import as_method
from ray_ns.methods.objectives import Consistent, Meta, Reduced, objective_of
from ray_ns.methods.objectives.lesson import BASELINE, FEEDBACK, Lesson, learn
from ray_ns.models.loss import smooth
from ray_ns.store import hints
from ray_ns.store.objects import LocalStore
from ray_ns.store.status import PROGRESS
from ray_ns.train.data import Batch, batches
from ray_ns.train.objective import Objective, Source
from ray_ns.train.state import TrainState
from ray_ns.train.step import NotFiniteError, Step

CPU = torch.device("cpu")
EXACT = {"labels": "soft", "feedback": "exact"}
OFFICIAL = {"preset": "official_code"}
VARIANTS: dict[str, dict[str, Any]] = {
    "difference": {},
    "cosine": {"feedback": "cosine"},
    "exact": EXACT,
    "official": OFFICIAL,
    "none": {"feedback": "none"},
    "waits": {"student_wait": 3},
    "reduced": {"reduced": True},
    "reduced-exact": {"reduced": True, **EXACT},
}


def recipe_of(config: Config, method: Method, mpl: dict[str, Any] | None = None, **settings: Any) -> Any:
    """The config's student, without its noise, as a method trains it. ``settings``: of student and teacher alike."""
    model = {**config.students[0].model.model_dump(), "dropout": 0.0, "drop_path": 0.0}
    quiet = {"noise": {"augment": "none", "flip": False}, "ema_decay": None, "optimizer": {"lr": 0.05}}
    common = {"model": model, "steps": STEPS, **quiet, **settings}
    student = {**config.students[0].model_dump(exclude_unset=True), **common}
    teacher = {**config.teacher.model_dump(exclude_unset=True), **common}
    meta = MetaPseudoLabels.model_validate(mpl or {})
    return as_method(Student.model_validate(student), method, Uda(), meta, Training.model_validate(teacher))


class MadeOf:
    """Makes an objective of a student's recipe; it can be sent to another process."""

    def __init__(self, config: Config, method: str, mpl: dict[str, Any]) -> None:
        self.config, self.method, self.mpl = config, method, mpl

    def __call__(self, student: Student) -> Objective:
        meta = MetaPseudoLabels.model_validate(self.mpl)
        return objective_of(as_method(student, self.method, Uda(), meta, self.config.teacher), student.batch, True)


@pytest.fixture
def batch() -> Callable[[Objective], Batch]:
    """A step's images: classes in their brightness; of the pool each plain and, where asked for, noised."""

    def made(objective: Objective, seed: int = 3) -> Batch:
        torch.manual_seed(seed)
        images, targets, counts = [], [], []
        for source in objective.sources():
            classes = torch.arange(source.per_step) % 3
            level = (40 + 80 * classes)[:, None, None, None].expand(-1, 16, 16, 1)
            for _ in source.views:
                images.append((level + torch.randint(-30, 31, level.shape)).clamp(0, 255).to(torch.uint8))
                targets.append(smooth(classes, 3, 0.3 if source.images == "selection" else 0.0))
                counts.append(source.per_step)
        return Batch(torch.cat(images), torch.cat(targets), tuple(counts))

    return made


def begun(config: Config, objective: Objective) -> tuple[Step, TrainState]:
    torch.set_num_threads(1)
    return Step(objective, config.data, 1, CPU, 0), TrainState.fresh(objective, config.data, 1, CPU)


def stepped(config: Config, recipe: Student, batch: Any, steps: int = 1) -> TrainState:
    objective = objective_of(recipe, recipe.batch, True)
    step, state = begun(config, objective)
    for number in range(steps):
        for net in state.nets.values():
            net.set_rate(state.step)
        step(state, batch(objective, number))
    return state


def of(state: TrainState, name: str) -> dict[str, torch.Tensor]:
    return {key: it.clone() for key, it in state.nets[name].network.state_dict().items()}


def moved(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in one)


# What each learns from.


def test_a_recipe_has_its_objective_and_its_images(config: Config) -> None:
    found = {
        name: objective_of(recipe_of(config, method, mpl), 4, True)
        for name, method, mpl in (
            ("uda", "uda", {}),
            ("meta", "meta_pseudo_labels", {}),
            ("reduced", "meta_pseudo_labels", {"reduced": True}),
        )
    }
    assert [type(it) for it in found.values()] == [Consistent, Meta, Reduced]
    pool = 4 * config.students[0].ratio
    two_views = (Source("labelled", 4), Source("selection", pool, (False, True)))
    assert found["uda"].sources() == found["meta"].sources() == two_views
    assert found["reduced"].sources() == (Source("labelled", 4), Source("selection", pool))
    networks = {name: [*it.networks()] for name, it in found.items()}
    assert networks == {"uda": ["student"], "meta": ["student", "teacher"], "reduced": ["student", "adjuster"]}
    assert {it.keeps for it in found.values()} == {"student"}


# Every setting is read, or refused.

KINDS = {"preset", "labels", "feedback", "reduced"}  # which variant it is; ``OTHERWISE``: all else, not the default
OTHERWISE: dict[str, dict[str, Any]] = {
    "mpl": {
        "scale": 50.0,
        "baseline": 0.0,
        "labelled": 0.5,
        "student_wait": 1,
        "adjuster_lr": 5.0,
        "adjuster_clip": 1e-6,
    },
    "uda": {"weight": 1.0, "temperature": 0.2, "threshold": 0.0, "ramp_steps": 9},
}
METHODS: dict[str, tuple[Method, dict[str, Any]]] = {
    "uda": ("uda", {}),
    **{name: ("meta_pseudo_labels", it) for name, it in VARIANTS.items() if name != "waits"},
    "reduced-cosine": ("meta_pseudo_labels", {"reduced": True, "feedback": "cosine"}),
    "reduced-official": ("meta_pseudo_labels", {"reduced": True, **OFFICIAL}),
    "reduced-none": ("meta_pseudo_labels", {"reduced": True, "feedback": "none"}),
}


@pytest.mark.parametrize("variant", METHODS)
def test_every_setting_changes_what_is_learned_or_is_refused(config: Config, batch: Any, variant: str) -> None:
    method, mpl = METHODS[variant]

    def ends(**more: dict[str, Any]) -> dict[str, dict[str, torch.Tensor]]:
        values = config.model_dump(exclude_unset=True)
        values |= {name: {**own, **more.get(name, {})} for name, own in (("mpl", mpl), ("uda", {}))}
        values["run"] |= {"method": method, "rounds": 1}
        recipe = Config.model_validate(values).students[0]
        quiet = {"dropout": 0.0, "drop_path": 0.0}
        recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update=quiet), "ema_decay": None})
        state = stepped(config, recipe, batch, 4)
        return {name: of(state, name) for name in state.nets}

    plain, read, refused = ends(), set(), set()
    for section, kind in (("mpl", MetaPseudoLabels), ("uda", Uda)):
        for name in kind.model_fields.keys() - KINDS:
            try:
                other = ends(**{section: {name: OTHERWISE[section][name]}})
            except ValueError as error:
                refused.add(f"{section}.{name}" if f"{name} = " in str(error) else str(error))
                continue
            if max(moved(plain[it], other[it]) for it in plain) > 1e-5:
                read.add(f"{section}.{name}")
    sections = {"mpl": MetaPseudoLabels, "uda": Uda} if method != "uda" else {"uda": Uda}
    if mpl.get("reduced"):
        del sections["uda"]  # its controls read it (preflight.unused)
    every = {f"{section}.{name}" for section, kind in sections.items() for name in kind.model_fields.keys() - KINDS}
    if method == "uda":
        assert read == every, "section mpl is told of (preflight.unused)"
    else:
        assert (read | refused, read & refused) == (every, set())


# The feedback.


def test_the_feedback_is_the_labelled_loss_before_the_step_less_that_after(config: Config, batch: Any) -> None:
    recipe = recipe_of(config, "meta_pseudo_labels")
    objective = objective_of(recipe, recipe.batch, True)
    step, state = begun(config, objective)
    student, images = state.nets["student"], batch(objective)
    labelled = images.images[: images.counts[0]].permute(0, 3, 1, 2).float() / 255
    labelled = (labelled - config.data.mean[0]) / config.data.std[0]
    truth = images.targets[: images.counts[0]].argmax(1)

    def loss() -> float:
        kept = of(state, "student")
        student.network.train()
        with torch.no_grad():
            found = float(F.cross_entropy(student.network(labelled), truth))
        student.network.load_state_dict(kept)
        return found

    before = loss()
    step(state, images)
    assert state.scalars[FEEDBACK] == pytest.approx(before - loss(), abs=1e-6)
    assert state.scalars[FEEDBACK] != 0
    assert state.scalars[BASELINE] == pytest.approx(0.01 * state.scalars[FEEDBACK])


def test_the_feedback_of_a_small_step_is_not_lost_in_the_rounding_of_bfloat16(config: Config, batch: Any) -> None:
    told = {}
    for precision in ("float32", "bfloat16"):
        settings = {"precision": precision, "optimizer": {"lr": 1e-4}}
        recipe = recipe_of(config, "meta_pseudo_labels", **settings)
        told[precision] = stepped(config, recipe, batch).scalars[FEEDBACK]
    assert 0 < abs(told["float32"]) < 1e-3, "less than bfloat16 resolves in a loss of about 1"
    assert told["bfloat16"] == pytest.approx(told["float32"], rel=0.2)


@pytest.mark.parametrize("feedback", ["difference", "cosine"])
def test_good_labels_have_a_higher_feedback_than_wrong_ones(config: Config, batch: Any, feedback: str) -> None:
    mpl = {"feedback": feedback, "baseline": 0.0}
    recipe = recipe_of(config, "meta_pseudo_labels", mpl, optimizer={"lr": 0.005})
    told = {}
    for shift in (0, 1):
        objective = objective_of(recipe, recipe.batch, True)
        _, state = begun(config, objective)
        images = batch(objective)
        pixels = images.images.permute(0, 3, 1, 2).float() / 255 - 0.5
        labelled, _, noised = pixels.split(images.counts)
        classes = (torch.arange(len(noised)) + shift) % 3
        lesson = Lesson(
            *(noised, labelled, smooth(classes, 3, 0.0), images.targets[: len(labelled)]),
            readable=torch.ones(len(noised), dtype=torch.bool),
            drawn=classes,
        )
        state.kept.begin()

        def agree(loss: torch.Tensor, *nets: Any, **scalars: torch.Tensor) -> dict[str, float]:
            for net in nets:
                net.update(1)
            return {"loss": float(loss), **{name: float(it) for name, it in scalars.items()}}

        told[shift] = learn(state, lesson, recipe.mpl, agree).h
    assert told[0] > 0 > told[1]


@pytest.mark.parametrize("variant", ["difference", "cosine", "exact"])
def test_asking_the_student_leaves_no_trace_in_it(config: Config, batch: Any, variant: str) -> None:
    # Batch norm's running figures and the draws of dropout are those of its own training pass alone.
    dropped = {**config.students[0].model.model_dump(), "dropout": 0.5}
    labels = {"labels": "soft"} if variant == "exact" else {}
    asked = recipe_of(config, "meta_pseudo_labels", {**VARIANTS[variant]}, model=dropped)
    silent = recipe_of(config, "meta_pseudo_labels", {**labels, "feedback": "none"}, model=dropped)
    one, other = (stepped(config, it, batch) for it in (asked, silent))
    assert moved(of(one, "student"), of(other, "student")) == 0
    assert moved(of(one, "teacher"), of(other, "teacher")) > 0, "the teacher was told"


def test_the_released_codes_feedback_teaches_nothing(config: Config, batch: Any) -> None:
    official = stepped(config, recipe_of(config, "meta_pseudo_labels", OFFICIAL), batch, 2)
    silent = stepped(config, recipe_of(config, "meta_pseudo_labels", {"labels": "soft", "feedback": "none"}), batch, 2)
    exact = stepped(config, recipe_of(config, "meta_pseudo_labels", EXACT), batch, 2)
    assert official.scalars[FEEDBACK] != 0
    assert moved(of(official, "teacher"), of(silent, "teacher")) < 1e-6
    assert moved(of(exact, "teacher"), of(silent, "teacher")) > 1e-5


def test_without_labels_and_consistency_the_teacher_moves_by_the_feedback_alone(config: Config, batch: Any) -> None:
    optimizer = {"lr": 0.05, "weight_decay": 0.0}
    for feedback in ("none", "difference"):
        mpl = {"labelled": 0.0, "feedback": feedback}
        recipe = recipe_of(config, "meta_pseudo_labels", mpl, optimizer=optimizer)
        recipe = recipe.model_copy(update={"uda": Uda(weight=0.0)})
        first = begun(config, objective_of(recipe, recipe.batch, True))[1]
        weights = [name for name, _ in first.nets["teacher"].network.named_parameters()]
        end = stepped(config, recipe, batch)
        distance = max(float((of(first, "teacher")[it] - of(end, "teacher")[it]).abs().max()) for it in weights)
        assert (distance > 0) == (feedback == "difference")


def test_the_student_waits_while_the_teacher_learns(config: Config, batch: Any) -> None:
    recipe = recipe_of(config, "meta_pseudo_labels", {"student_wait": 3})
    objective = objective_of(recipe, recipe.batch, True)
    first = begun(config, objective)[1]
    for steps in (3, 5):
        state = stepped(config, recipe, batch, steps)
        assert moved(of(first, "teacher"), of(state, "teacher")) > 0
        assert (moved(of(first, "student"), of(state, "student")) > 0) == (steps == 5)
        assert (FEEDBACK in state.scalars) == (steps == 5)


def test_the_adjuster_begins_as_if_there_were_none_and_moves_by_the_feedback(config: Config, batch: Any) -> None:
    told = stepped(config, recipe_of(config, "meta_pseudo_labels", VARIANTS["reduced"]), batch, 3)
    silent = stepped(config, recipe_of(config, "meta_pseudo_labels", {"reduced": True, "feedback": "none"}), batch, 3)
    assert moved(of(silent, "adjuster"), {"linear.weight": torch.eye(3), "linear.bias": torch.zeros(3)}) == 0
    assert moved(of(told, "adjuster"), of(silent, "adjuster")) > 0


@pytest.mark.parametrize(
    ("mpl", "settings", "told"),
    [
        ({}, {"optimizer": {"lr": 1e30}}, r"^student: .*Lower student\.optimizer\.lr"),
        ({"scale": 1e38}, {}, r"^teacher: .*student had been updated .*Lower teacher\.optimizer\.lr"),
        (
            {"reduced": True, "scale": 1e38},
            {},
            r"^adjuster: .*Lower mpl\.adjuster_lr or student\.optimizer\.lr, or leng",
        ),
    ],
)
def test_what_is_not_finite_names_its_network_and_the_setting_that_mends_it(
    config: Config, batch: Any, mpl: dict[str, Any], settings: dict[str, Any], told: str
) -> None:
    with pytest.raises(NotFiniteError, match=told):
        stepped(config, recipe_of(config, "meta_pseudo_labels", {"baseline": 0.0, **mpl}, **settings), batch, 6)


# Images that cannot be read.


@pytest.mark.parametrize(("method", "mpl"), [("uda", {}), *(("meta_pseudo_labels", it) for it in VARIANTS.values())])
def test_unreadable_images_teach_nothing_however_they_look(config: Config, batch: Any, method: str, mpl: Any) -> None:
    recipe = recipe_of(config, method, mpl)

    def with_black(objective: Objective, look: int) -> Batch:
        found = batch(objective)
        images, targets = found.images.clone(), found.targets.clone()
        at = 0
        for count in found.counts:
            images[at], targets[at] = look, 0
            at += count
        return Batch(images, targets, found.counts)

    ends = []
    for look in (0, 255):
        objective = objective_of(recipe, recipe.batch, True)
        step, state = begun(config, objective)
        for net in state.nets.values():
            for module in net.network.modules():  # in training batch norm looks at all images; its figures do not
                if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                    module.forward = _by_running_figures(module)
        step(state, with_black(objective, look))
        ends.append({name: dict(net.network.named_parameters()) for name, net in state.nets.items()})
    for name in ends[0]:
        assert all(torch.allclose(ends[0][name][key], ends[1][name][key], atol=1e-7) for key in ends[0][name])


def _by_running_figures(module: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    def forward(x: torch.Tensor) -> torch.Tensor:
        found = F.batch_norm(x, module.running_mean, module.running_var, module.weight, module.bias, False)
        return module.act(module.drop(found)) if hasattr(module, "act") else found

    return forward


# Killed and resumed.


def mpl_of(variant: str) -> str:
    """Which feedback a variant has."""
    return MetaPseudoLabels.model_validate(VARIANTS[variant]).feedback


@pytest.mark.parametrize("variant", VARIANTS)
def test_killed_after_a_step_it_goes_on_bit_for_bit(config: Config, tmp_path: Path, variant: str) -> None:
    """One training, killed again and again: of the usual form after every step."""
    made, data = MadeOf(config, "meta_pseudo_labels", VARIANTS[variant]), tmp_path / "data"
    tiny_training.steps_in(data)
    assert in_a_process(tmp_path / "whole", data, config, None, made) == 0
    tensors, noted = end_of(tmp_path / "whole")
    assert {it.split("/")[1] for it in tensors if it.startswith("nets/")} == {
        "adjuster" if variant.startswith("reduced") else "teacher"
    }
    progress = hints.read(LocalStore(tmp_path / "whole"), f"{tiny_training.PREFIX}/{PROGRESS}")
    assert ("feedback" in progress) == (mpl_of(variant) not in ("none", "exact")), "it is shown beside the loss"
    for step in range(1, STEPS + 1) if variant == "difference" else (4, 10):
        assert in_a_process(tmp_path / "killed", data, config, Kill(step), made) == -signal.SIGKILL
    assert in_a_process(tmp_path / "killed", data, config, None, made) == 0
    again, told = end_of(tmp_path / "killed")
    assert not [name for name, tensor in tensors.items() if not torch.equal(tensor, again[name])]
    assert (told["losses"], told["facts"]) == (noted["losses"], noted["facts"])


# Two workers.

STILL = {
    "model": {"name": "resnet10t", "args": {"channels": [8, 8, 16, 16], "stem_width": 8, "norm_layer": "groupnorm1"}},
    "noise": {"augment": "none"},
    "optimizer": {"lr": 0.05, "weight_decay": 0.0},
    "ema_decay": None,
}


def workers_of(world: int, made: MadeOf, data: Path, out: Any) -> None:
    import torch.multiprocessing as mp

    mp.start_processes(one_of, (world, made, data, out), world, start_method="fork")


def one_of(rank: int, world: int, made: MadeOf, data: Path, out: Any) -> None:
    torch.set_num_threads(1)
    os.environ.update(GLOO_SOCKET_IFNAME="lo")
    torch.distributed.init_process_group("gloo", init_method=f"file://{data}/meet-{world}", rank=rank, world_size=world)
    student = {**made.config.students[0].model_dump(exclude_unset=True), **STILL}
    teacher = {**made.config.teacher.model_dump(exclude_unset=True), **STILL}
    made.config = made.config.model_copy(update={"teacher": Training.model_validate(teacher)})
    objective = made(Student.model_validate(student))
    state = TrainState.fresh(objective, made.config.data, 1, CPU)
    for net in state.nets.values():
        if world > 1:
            net.wrapped = torch.nn.parallel.DistributedDataParallel(net.network)
    step = Step(objective, made.config.data, 1, CPU, rank)
    told = []
    views = objective.sources()[-1].views
    for batch in batches(tiny_training.steps_in(data, rank=rank, world=world, views=views), 0, 4, 0):
        loss = step(state, batch)
        told.append((loss, state.scalars.get(FEEDBACK, 0.0)))
    out.put((rank, told, {name: tensor.numpy() for name, tensor in state.tensors().items()}))


@pytest.mark.parametrize("variant", ["difference", "cosine", "exact", "reduced"])
def test_two_workers_learn_what_one_does_and_have_its_feedback(config: Config, tmp_path: Path, variant: str) -> None:
    tiny_training.steps_in(tmp_path)
    forks, ends = tiny_training.forks(), {}
    made = MadeOf(config, "meta_pseudo_labels", VARIANTS[variant])
    for world in (1, 2):
        out = forks.Queue()
        process = forks.Process(target=workers_of, args=(world, made, tmp_path, out))
        process.start()
        ends[world] = sorted((out.get(timeout=100) for _ in range(world)), key=lambda it: it[0])
        process.join(100)
    (_, told, weights), (first, second) = ends[1][0], ends[2]
    assert first[1] == second[1], "losses and feedback are the global batch's, on every worker"
    assert np.array(first[1]) == pytest.approx(np.array(told), rel=1e-3, abs=1e-6)
    assert variant == "exact" or all(h for _, h in told)
    for name, tensor in weights.items():
        np.testing.assert_array_equal(first[2][name], second[2][name], err_msg=name)
        np.testing.assert_allclose(first[2][name], tensor, rtol=1e-2, atol=1e-4, err_msg=name)


def test_the_teacher_beside_a_student_keeps_no_average_of_its_weights(config: Config) -> None:
    recipe = recipe_of(config, "meta_pseudo_labels", ema_decay=0.9)
    assert (recipe.ema_decay, recipe.of_teacher.ema_decay) == (0.9, None)


def test_the_adjusters_gradient_is_cut_to_its_own_length(config: Config, batch: Any) -> None:
    moves = {}
    for clip in (1.0, 1e-3):
        mpl = {"reduced": True, "scale": 1e6, "adjuster_clip": clip, "adjuster_lr": 0.1}
        recipe = recipe_of(config, "meta_pseudo_labels", mpl)
        before = of(begun(config, objective_of(recipe, recipe.batch, True))[1], "adjuster")
        after = of(stepped(config, recipe, batch), "adjuster")
        moves[clip] = sum(float((after[name] - it).square().sum()) for name, it in before.items()) ** 0.5
    assert moves[1.0] == pytest.approx(0.1, rel=0.01)
    assert moves[1e-3] == pytest.approx(1e-4, rel=0.01)
