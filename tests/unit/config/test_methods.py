"""Settings of the methods: which recipe each makes of a student's, and what it refuses."""

from typing import Any

import pytest
from support.settings import MINIMAL

from ray_ns.config import Config, MetaStudent, ReducedStudent, Settings, UdaStudent


def of(method: str, **sections: Any) -> Config:
    values = {**MINIMAL, "run": {**MINIMAL["run"], "method": method, **sections.pop("run", {})}}
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section}
    return Config.model_validate(values)


@pytest.mark.parametrize("method", ["supervised", "pseudo_label", "uda", "meta_pseudo_labels"])
def test_another_method_than_noisy_student_has_one_round(method: str) -> None:
    assert len(of(method).students) == of(method).run.rounds == 1
    with pytest.raises(ValueError, match=rf"run.rounds = 3: {method} has one round. Write run.rounds: 1"):
        of(method, run={"rounds": 3})


def test_each_method_has_a_recipe_of_its_own_digest() -> None:
    # Else a run would take another method's network for its own.
    recipes = [of(it).students[0] for it in ("noisy_student", "pseudo_label", "uda", "meta_pseudo_labels")]
    recipes.append(of("meta_pseudo_labels", mpl={"reduced": True}).students[0])
    found = [Settings().of(it) for it in recipes]
    assert all(one != other for at, one in enumerate(found) for other in found[at + 1 :])
    assert [type(it) for it in recipes[2:]] == [UdaStudent, MetaStudent, ReducedStudent]


def test_the_teacher_takes_the_steps_and_images_of_the_training_that_it_is_in() -> None:
    student = of("meta_pseudo_labels", teacher={"steps": 7, "batch": 2, "label_smoothing": 0.2}).students[0]
    assert isinstance(student, MetaStudent)
    beside = student.of_teacher
    assert (beside.steps, beside.batch, beside.label_smoothing) == (student.steps, student.batch, 0.2)


def test_the_preset_of_the_released_code_has_soft_labels() -> None:
    mpl = of("meta_pseudo_labels", mpl={"preset": "official_code"}).mpl
    assert (mpl.labels, mpl.feedback) == ("soft", "difference")


@pytest.mark.parametrize(
    ("mpl", "told"),
    [
        ({"preset": "official_code", "labels": "sampled"}, "official_code has labels: soft, found sampled"),
        ({"preset": "official_code", "feedback": "exact"}, "official_code has feedback: difference, found exact"),
        ({"labels": "soft"}, "gradient of exactly 0"),
        ({"feedback": "exact"}, "Write labels: soft"),
        ({"labels": "soft", "feedback": "cosine"}, "Write labels: sampled"),
        ({"scale": -5.0}, "greater than 0"),
        ({"reduced": True, "student_wait": 3}, "student_wait = 3 has no effect beside reduced: true. Leave it out"),
        ({"reduced": True, "labelled": 0.0}, "labelled = 0.0 has no effect beside reduced: true"),
        ({"reduced": True, "feedback": "none", "adjuster_lr": 5.0}, "adjuster_lr = 5.0 has no effect beside feedback"),
        ({"adjuster_lr": 5.0}, "adjuster_lr = 5.0 has no effect beside reduced: false"),
        ({"feedback": "none", "scale": 5.0}, "scale = 5.0 has no effect beside feedback: none"),
        ({"preset": "official_code", "scale": 5.0}, "scale = 5.0 has no effect beside preset: official_code"),
        ({"labels": "soft", "feedback": "exact", "baseline": 0.5}, "baseline = 0.5 has no effect beside feedback: ex"),
    ],
)
def test_settings_that_do_not_fit_are_refused(mpl: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        of("meta_pseudo_labels", mpl=mpl)


@pytest.mark.parametrize("wait", [4, 400])
def test_a_student_that_would_wait_to_its_last_step_is_refused(wait: int) -> None:
    steps = MINIMAL["student"]["steps"]
    of("meta_pseudo_labels", mpl={"student_wait": steps - 1})
    with pytest.raises(ValueError, match=rf"mpl.student_wait = {wait}: .* student.steps = {steps}. Lower it, or raise"):
        of("meta_pseudo_labels", mpl={"student_wait": wait})
    of("noisy_student", mpl={"student_wait": wait})


@pytest.mark.parametrize(
    ("set_", "fits"),
    [({"targets": "soft"}, False), ({"temperature": 0.5}, False), ({"targets": "hard"}, True), ({}, True)],
)
def test_pseudo_labels_are_hard_and_nothing_else_is_taken_for_them(set_: dict[str, Any], fits: bool) -> None:
    if fits:
        assert of("pseudo_label", student=set_).students[0].targets == "hard"
        return
    with pytest.raises(ValueError, match=f"student.{next(iter(set_))} is not for run.method: pseudo_label"):
        of("pseudo_label", student=set_)


@pytest.mark.parametrize(
    ("method", "mpl", "reader"),
    [
        ("noisy_student", {}, "student.targets: soft"),
        ("supervised", {}, ""),
        ("pseudo_label", {}, ""),
        ("uda", {}, ""),
        ("meta_pseudo_labels", {}, ""),
        ("meta_pseudo_labels", {"reduced": True}, "mpl.reduced: true"),
        ("noisy_student", {"reduced": True}, "student.targets: soft"),
    ],
)
def test_soft_labels_are_asked_for_where_they_are_read(method: str, mpl: dict[str, Any], reader: str) -> None:
    if not reader:
        of(method, mpl=mpl, label={"keep": "hard"})
        return
    with pytest.raises(ValueError, match=f"{reader} needs label.keep: top or full, found hard"):
        of(method, mpl=mpl, label={"keep": "hard"})


@pytest.mark.parametrize("method", ["uda", "meta_pseudo_labels"])
@pytest.mark.parametrize(
    ("section", "set_"),
    [
        ("cluster", {"train_microbatch": 8}),
        ("student", {"joint": False}),
        ("student", {"loss": "sum"}),
        ("student", {"targets": "hard"}),
        ("student", {"temperature": 0.5}),
        ("student", {"optimizer": {"sam": 0.05}}),
        ("student", {"pseudo_noise": {"dropout": False}}),
    ],
)
def test_what_a_method_with_two_views_cannot_do_is_refused(method: str, section: str, set_: dict[str, Any]) -> None:
    of("noisy_student", **{section: set_})
    name = f"{section}.{next(iter(set_))}"
    with pytest.raises(ValueError, match=f"{name}.* is not for run.method: {method}"):
        of(method, **{section: set_})


def test_the_reduced_variant_sharpens_stored_probabilities() -> None:
    assert of("meta_pseudo_labels", mpl={"reduced": True}, student={"temperature": 0.5}).students[0].temperature == 0.5
    with pytest.raises(ValueError, match=r"student.targets is not for run.method: meta_pseudo_labels"):
        of("meta_pseudo_labels", mpl={"reduced": True}, student={"targets": "hard"})


def test_the_exact_gradient_is_refused_with_batch_norm_over_groups() -> None:
    exact = {"labels": "soft", "feedback": "exact"}
    with pytest.raises(ValueError, match="bn_group: 1"):
        of("meta_pseudo_labels", mpl=exact, cluster={"train_workers": 2, "bn_group": 2})
