"""Trainings that would never learn, or end before they begin: refused of a new run, by name and with the mend."""

from typing import Any

import pytest
from support.settings import MINIMAL

from ray_ns.config import Config, check_schedules
from ray_ns.errors import InputError


def of(method: str = "noisy_student", **sections: dict[str, Any]) -> Config:
    values = {**MINIMAL, "run": {**MINIMAL["run"], "method": method}}
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section}
    return Config.model_validate(values)


def warm(steps: int) -> dict[str, Any]:
    return {"optimizer": {"warmup_steps": steps}}


@pytest.mark.parametrize("place", ["teacher", "student"])
@pytest.mark.parametrize(
    ("within", "more"),
    [
        ("", {}),
        ("finetune.", {}),
        ("fixres.", {"size": 40, "variant": "head"}),
        ("fixres.", {"size": 40, "variant": "head_and_norm"}),
    ],
)
def test_a_warm_up_that_takes_all_steps_is_refused(place: str, within: str, more: dict[str, Any]) -> None:
    def made(steps: int, of_them: int) -> Config:
        own = {"steps": steps, **warm(of_them), **more}
        return of(**{place: {within[:-1]: own} if within else own})

    for warmup in (5, 600):
        with pytest.raises(InputError) as caught:
            check_schedules(made(5, warmup))
        assert str(caught.value).startswith(
            f"{place}.{within}optimizer.warmup_steps = {warmup}: the learning rate would not reach its height in "
            f"{place}.{within}steps = 5. Lower it"
        )
    check_schedules(made(5, 4))
    check_schedules(made(1, 1))  # one step to try it


def test_each_recipe_of_a_list_is_looked_at() -> None:
    recipes = [MINIMAL["student"], MINIMAL["student"] | warm(4)]
    config = Config.model_validate(MINIMAL | {"student": recipes, "run": MINIMAL["run"] | {"rounds": 2}})
    with pytest.raises(InputError, match=r"^student.1.optimizer.warmup_steps = 4: .* in student.1.steps = 4"):
        check_schedules(config)


@pytest.mark.parametrize("section", [{"finetune": {"steps": 0, **warm(9)}}, {"fixres": {"steps": 5, **warm(9)}}])
def test_what_is_not_done_has_no_warm_up(section: dict[str, Any]) -> None:
    check_schedules(of(student=section))
    check_schedules(of(student={"fixres": {"size": 40, "variant": "affine", "steps": 5, **warm(9)}}))


@pytest.mark.parametrize(("wait", "warmup", "fits"), [(5, 5, False), (9, 1, False), (4, 5, True), (9, 0, True)])
def test_a_student_that_waits_has_steps_after_its_warm_up(wait: int, warmup: int, fits: bool) -> None:
    student, mpl = {"steps": 10, **warm(warmup)}, {"student_wait": wait}
    check_schedules(of("uda", student=student, mpl=mpl))
    config = of("meta_pseudo_labels", student=student, mpl=mpl)
    if fits:
        check_schedules(config)
        return
    with pytest.raises(InputError) as caught:
        check_schedules(config)
    assert str(caught.value).startswith(
        f"mpl.student_wait = {wait}, and student.optimizer.warmup_steps = {warmup} after it: the learning rate would "
        f"not reach its height in student.steps = 10. Lower"
    )


@pytest.mark.parametrize("reduced", [False, True])
def test_the_teacher_beside_a_student_warms_up_within_that_ones_steps(reduced: bool) -> None:
    config = of(
        "meta_pseudo_labels", teacher={"steps": 50, **warm(10)}, student={"steps": 10}, mpl={"reduced": reduced}
    )
    if reduced:
        check_schedules(config)  # it is trained in round 0 alone
        return
    with pytest.raises(InputError, match=r"^teacher.optimizer.warmup_steps = 10: .* in student.steps = 10, for which"):
        check_schedules(config)


@pytest.mark.parametrize(
    ("schedule", "steps", "mpl", "fits"),
    [
        ({"schedule": "step", "decay_steps": 3}, 10, {}, False),
        ({"schedule": "step", "decay_steps": 3}, 40, {}, True),
        ({"schedule": "step", "decay_steps": 3}, 10, {"reduced": True}, True),
        ({"schedule": "cosine"}, 10, {}, True),
        ({"schedule": "constant"}, 10, {}, True),
    ],
)
def test_one_staircase_of_the_teacher_is_not_for_trainings_of_two_lengths(
    schedule: dict[str, Any], steps: int, mpl: dict[str, Any], fits: bool
) -> None:
    teacher, student = {"steps": steps, "optimizer": schedule}, {"steps": 40}
    check_schedules(of("noisy_student", teacher=teacher, student=student))
    config = of("meta_pseudo_labels", teacher=teacher, student=student, mpl=mpl)
    if fits:
        check_schedules(config)
        return
    with pytest.raises(InputError) as caught:
        check_schedules(config)
    assert str(caught.value) == (
        "teacher.optimizer.schedule: step has decay_steps = 3 for teacher.steps = 10 alone, and beside the student it "
        "is trained for student.steps = 40. Write schedule: cosine or constant, or make the steps equal."
    )
