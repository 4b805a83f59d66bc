"""Warm-up, wait and decay beside the steps of a training. Only of a new run: one that has begun goes on as it is."""

from collections.abc import Iterator
from typing import Any

from ray_ns.config.config import Config
from ray_ns.config.methods import MetaStudent
from ray_ns.config.training import Training
from ray_ns.errors import InputError


def check_schedules(config: Config) -> None:
    """Raise ``InputError`` for a training whose learning rate never is at its height, or is next to 0 for long."""
    for place, warmup, steps, of_steps in _warmed(config):
        if warmup >= steps > 1:
            raise InputError(
                f"{place}.optimizer.warmup_steps = {warmup}: the learning rate would not reach its height in "
                f"{of_steps}. Lower it, or raise the steps."
            )
    for student in config.students:
        if isinstance(student, MetaStudent):
            _check_beside(student)


def of_other_steps(recipe: Training, steps: int) -> dict[str, Any]:
    """The settings of a recipe's staircase, where it is not for so many ``steps``, each as it fits any number."""
    staircase = recipe.optimizer.schedule == "step" and recipe.steps != steps
    return {"schedule": "cosine", "decay_steps": None} if staircase else {}


def _warmed(config: Config) -> Iterator[tuple[str, int, int, str]]:
    """Of each training its place, its warm-up, its steps, and these in words."""
    for name, recipe in config.recipes().items():
        found: dict[str, Training | None] = {"": recipe, ".finetune": recipe.tuning, ".fixres": recipe.fixing}
        if recipe.fixres.variant in ("statistics", "affine"):
            del found[".fixres"]  # looks at images, and learns by no rate
        for within, it in found.items():
            if it is not None:
                yield f"{name}{within}", it.optimizer.warmup_steps, it.steps, f"{name}{within}.steps = {it.steps}"


def _check_beside(student: MetaStudent) -> None:
    """The teacher and the student of Meta Pseudo Labels, which are trained together."""
    teacher, steps, wait = student.teacher.optimizer, student.steps, student.mpl.student_wait
    if of_other_steps(student.teacher, steps):
        raise InputError(
            f"teacher.optimizer.schedule: step has decay_steps = {teacher.decay_steps} for teacher.steps = "
            f"{student.teacher.steps} alone, and beside the student it is trained for student.steps = {steps}. Write "
            f"schedule: cosine or constant, or make the steps equal."
        )
    told = f"the learning rate would not reach its height in student.steps = {steps}"
    if teacher.warmup_steps >= steps > 1:
        raise InputError(
            f"teacher.optimizer.warmup_steps = {teacher.warmup_steps}: {told}, for which it is trained beside the "
            f"student. Lower it, or raise the steps."
        )
    if wait and wait + student.optimizer.warmup_steps >= steps:
        raise InputError(
            f"mpl.student_wait = {wait}, and student.optimizer.warmup_steps = {student.optimizer.warmup_steps} after "
            f"it: {told}. Lower one of them, or raise the steps."
        )
