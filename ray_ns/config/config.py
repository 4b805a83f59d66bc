"""The whole config of a run, and what its sections must be to each other."""

import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag, model_validator

from ray_ns.config.cluster import Cluster
from ray_ns.config.data import Data
from ray_ns.config.given import GivenTeacher
from ray_ns.config.labelling import Label, Select
from ray_ns.config.methods import MetaPseudoLabels, Method, Uda, as_method
from ray_ns.config.run import Control, Run
from ray_ns.config.schema import Section
from ray_ns.config.training import Student, Training


class Config(Section):
    """A whole run."""

    run: Run
    data: Data
    teacher: Annotated[
        Annotated[Training, Tag("trained")] | Annotated[GivenTeacher, Tag("given")],
        Discriminator(
            lambda it: (
                "given" if isinstance(it, GivenTeacher) or (isinstance(it, Mapping) and "from" in it) else "trained"
            )
        ),
    ]
    student: Annotated[
        Annotated[Student, Tag("one")] | Annotated[list[Student], Tag("list"), Field(min_length=1)],
        Discriminator(lambda it: "list" if isinstance(it, list) else "one"),
    ]
    label: Label = Label()
    select: Select = Select()
    uda: Uda = Uda()
    mpl: MetaPseudoLabels = MetaPseudoLabels()
    control: Control = Control()
    cluster: Cluster = Cluster()

    @property
    def students(self) -> list[Student]:
        """The recipe of each round from 1 on, as the method trains it."""
        return [self.as_trained(it) for it in self.plain_students]

    def as_trained(self, student: Student, method: Method | None = None) -> Student:
        """A student's recipe as ``method`` trains it; None: the run's."""
        return as_method(student, method or self.run.method, self.uda, self.mpl, self.teacher)

    @property
    def plain_students(self) -> list[Student]:
        """The recipe of each round from 1 on as the file has it."""
        listed = self.student if isinstance(self.student, list) else [self.student]
        return [listed[min(number, len(listed) - 1)] for number in range(self.run.rounds)]

    @property
    def uses_pool(self) -> bool:
        """Whether anything learns from the pool, so that it is labelled."""
        return self.run.method != "supervised"

    def reading(self, data: Data) -> "Config":
        """The same run with images read as ``data`` says."""
        return self.model_copy(update={"data": data})

    def recipes(self) -> dict[str, Training]:
        """Every recipe that the file names, by its dotted name; a teacher that is given has none."""
        teacher = {"teacher": self.teacher} if isinstance(self.teacher, Training) else {}
        if isinstance(self.student, list):
            return teacher | {f"student.{at}": it for at, it in enumerate(self.student)}
        return teacher | {"student": self.student}

    def may_teach(self, number: int) -> range:
        """The rounds whose network may be the teacher of a round, which is 1 or more."""
        last_one = self.run.patience == 1 or self.run.promote == "always"
        return range(number - 1 if last_one else 0, number)

    @model_validator(mode="before")
    @classmethod
    def _one_round(cls, values: Any) -> Any:
        """Only Noisy Student has more rounds than one."""
        run = values.get("run") if isinstance(values, dict) else None
        if not isinstance(run, dict) or run.get("method", "noisy_student") == "noisy_student":
            return values
        return values | {"run": {"rounds": 1} | run}

    @model_validator(mode="after")
    def _possible(self) -> "Config":
        self._check_method()
        for name, recipe in self.recipes().items():
            if isinstance(recipe, Student):
                self._check_labels(name, recipe)
            for of, share in (("", recipe.crop_share), ("fixres.", recipe.fixres.crop_share)):
                if share is not None and self.data.fit == "squash":
                    raise ValueError(f"{name}.{of}crop_share = {share} is for data.fit: crop, found squash")
        self._check_shares()
        if isinstance(self.student, list) and len(self.student) > self.run.rounds:
            raise ValueError(f"student lists {len(self.student)} recipes, run.rounds is {self.run.rounds}")
        self._check_init()
        self._check_validation()
        for name in ("thresholds", "quotas"):
            unknown = [label for label in getattr(self.select, name) if label >= (self.data.classes or math.inf)]
            if unknown:
                raise ValueError(f"select.{name}: class {unknown[0]} is not one of data.classes = {self.data.classes}")
        return self

    def _check_labels(self, name: str, recipe: Student) -> None:
        """What a student learns from is stored."""
        reduced = self.run.method == "meta_pseudo_labels" and self.mpl.reduced
        reader = {
            "noisy_student": f"{name}.targets: soft",
            "meta_pseudo_labels": "mpl.reduced: true" if reduced else "",
        }
        if self.label.keep == "hard" and recipe.targets == "soft" and reader.get(self.run.method):
            raise ValueError(f"{reader[self.run.method]} needs label.keep: top or full, found hard")

    def _check_method(self) -> None:
        """What a method cannot do is refused, so that no setting is without effect in silence."""
        method = self.run.method
        if method == "noisy_student":
            return
        if self.run.rounds != 1:
            raise ValueError(f"run.rounds = {self.run.rounds}: {method} has one round. Write run.rounds: 1")
        if method == "meta_pseudo_labels":
            self._check_meta()
        for name in self.unfit(method):
            raise ValueError(f"{name} is not for run.method: {method}. Leave it out")

    def _check_meta(self) -> None:
        """Meta Pseudo Labels has a teacher that it can train, and a student that learns."""
        if self.mpl.feedback == "exact" and self.cluster.bn_group > 1:
            raise ValueError("mpl.feedback: exact cannot go through batch norm over groups: cluster.bn_group: 1")
        if isinstance(self.teacher, GivenTeacher) and not self.mpl.reduced:
            raise ValueError(
                "teacher.from has no recipe by which it could be trained beside the student. Give teacher a recipe, or "
                "write mpl.reduced: true, with which a frozen teacher's stored labels are adjusted"
            )
        wait, steps = self.mpl.student_wait, self.plain_students[0].steps
        if wait >= steps:
            raise ValueError(
                f"mpl.student_wait = {wait}: the student would learn nothing in its student.steps = {steps}. Lower it, "
                f"or raise student.steps"
            )

    def unfit(self, method: Method) -> dict[str, Any]:
        """The settings that are set and not for ``method``, each with the value that is for it."""
        student, teacher, cluster = self.plain_students[0], self.teacher, self.cluster
        found: dict[str, tuple[bool, Any]] = {}
        if method == "pseudo_label":
            soft = "targets" in student.model_fields_set and student.targets != "hard"
            found = {"student.targets": (soft, "hard"), "student.temperature": (student.temperature != 1, 1.0)}
        if method in ("uda", "meta_pseudo_labels"):
            reduced = method == "meta_pseudo_labels" and self.mpl.reduced
            beside = teacher if method == "meta_pseudo_labels" and not reduced else None
            found = {
                "cluster.train_microbatch": (cluster.train_microbatch is not None, None),
                "student.optimizer.sam": (student.optimizer.sam > 0, 0.0),
                "teacher.optimizer.sam": (isinstance(beside, Training) and beside.optimizer.sam > 0, 0.0),
                "student.joint": (not student.joint, True),
                "student.loss": (student.loss != "mean", "mean"),
                "student.targets": (student.targets != "soft", "soft"),
                "student.temperature": (student.temperature != 1 and not reduced, 1.0),
                **{f"student.pseudo_noise.{name}": (not on, True) for name, on in student.pseudo_noise},
            }
        return {name: fitting for name, (set_so, fitting) in found.items() if set_so}

    def _check_shares(self) -> None:
        """Each number of training workers that there may be divides every batch, and divides into groups, equally."""
        totals = {f"{name}.batch": recipe.batch for name, recipe in self.recipes().items()}
        totals |= {
            f"{name}.batch x ratio": recipe.batch * recipe.ratio
            for name, recipe in self.recipes().items()
            if isinstance(recipe, Student)
        }
        for what, total in totals.items():
            for workers in self.cluster.worker_counts:
                if total % workers:
                    raise ValueError(
                        f"{what} = {total} does not divide by cluster.train_workers = {workers} "
                        f"({total} = {workers} x {total // workers} + {total % workers}); "
                        + _dividing(math.gcd(*totals.values()), workers)
                    )
        group = self.cluster.bn_group
        for workers in self.cluster.worker_counts:
            if workers % group:
                raise ValueError(
                    f"cluster.bn_group = {group} does not divide cluster.train_workers = {workers}. Give one "
                    f"number of workers that is a multiple of {group}, or bn_group: 1"
                )

    def _check_validation(self) -> None:
        """Without validation images nothing asks for them."""
        if self.data.validation is not None or self.data.held_out != 0:
            return
        asking = [f"{name}.eval_steps" for name, recipe in self.recipes().items() if recipe.eval_steps is not None]
        asking += ["run.promote: validation"] if self.run.promote == "validation" else []
        asking += ["label.temperature: auto"] if self.label.temperature == "auto" else []
        if asking:
            raise ValueError(
                f"{asking[0]} needs validation images, and data.held_out: 0 holds none out. Give data.validation, hold "
                f"some out, or leave {asking[0].partition(':')[0]} out"
            )

    def _check_init(self) -> None:
        """A student may only take up weights that fit it, whichever round its teacher comes from.

        A teacher that is given is compared where it is read (``engine.teachers``).
        """
        recipes = [self.teacher, *self.students]
        for number, student in enumerate(self.students, 1):
            teachers = [recipes[at] for at in self.may_teach(number)] if student.init == "teacher" else []
            for before in (it.model for it in teachers if isinstance(it, Training)):
                if (before.name, before.args) != (student.model.name, student.model.args):
                    raise ValueError(
                        f"student.init: teacher in round {number}: its teacher may be {before.name} {before.args}, the "
                        f"student is {student.model.name} {student.model.args}. Make them equal, or init: scratch"
                    )


def _dividing(total: int, workers: int) -> str:
    """Which numbers of workers, near the one that does not, divide ``total`` and so every batch."""
    fewer = next(it for it in range(workers - 1, 0, -1) if total % it == 0)
    more = next((it for it in range(workers + 1, total + 1) if total % it == 0), None)
    all_of = next(it for it in range(1, total + 1) if total % (it + 1))
    near = f"{fewer} or {more}" if more else f"{fewer}"
    return f"{near} would do, and as [least, most], where every number between must, [1, {all_of}]"
