"""Settings ``uda`` and ``mpl``: what the methods besides Noisy Student add; and the students that they train."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ray_ns.config.given import GivenTeacher
from ray_ns.config.schema import Section
from ray_ns.config.training import Optimizer, Student, Training

Method = Literal["noisy_student", "supervised", "pseudo_label", "uda", "meta_pseudo_labels"]
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    "official_code": {"labels": "soft", "feedback": "difference"},
}


class Uda(Section):
    """Consistency of two views of a pool image (Xie et al. 2020, UDA): the student's in uda, the teacher's in MPL."""

    weight: Annotated[float, Field(ge=0)] = Field(
        8.0, description="of the consistency beside the labelled loss (MPL's code: 8 on CIFAR-10, 20 on ImageNet)"
    )
    temperature: Annotated[float, Field(gt=0, le=10)] = Field(
        0.7, description="of the plain view's logits, below 1: surer (MPL's code: 0.7 and 0.5)"
    )
    threshold: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.6, description="plain views whose top probability, so divided, is lower teach nothing (MPL's code: 0.6)"
    )
    ramp_steps: Annotated[int, Field(ge=0)] = Field(
        0, description="steps over which the weight grows from 0 (MPL's code: 5,000 and 50,000)"
    )


class MetaPseudoLabels(Section):
    """How the teacher learns from what its labels did to the student (Pham et al. 2021)."""

    preset: Literal["paper", "official_code"] = Field(
        "paper",
        description="paper: a class drawn from the teacher's probabilities, the loss's difference as feedback; "
        "official_code: its probabilities, with which the gradient of the feedback is exactly 0",
    )
    labels: Literal["sampled", "soft"] = Field(
        "sampled", description="what the student learns: a class drawn from the teacher's probabilities, or these"
    )
    feedback: Literal["difference", "cosine", "exact", "none"] = Field(
        "difference",
        description="difference: the student's loss on labelled images before its step less that after it; cosine: "
        "between the gradients of both losses; exact: the gradient through the step (double backward; labels: soft); "
        "none: a control",
    )
    scale: Annotated[float, Field(gt=0)] = Field(1.0, description="of the feedback in the teacher's loss")
    baseline: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.99, description="decay of the feedback's moving average, which is subtracted from it; 0: nothing is"
    )
    labelled: Annotated[float, Field(ge=0)] = Field(
        1.0, description="weight of the teacher's loss on labelled images; 0: labels reach it by the feedback alone"
    )
    student_wait: Annotated[int, Field(ge=0)] = Field(
        0, description="steps in which the teacher learns alone (the code: 3,000 on CIFAR-10, 20,000 on ImageNet)"
    )
    reduced: bool = Field(
        False,
        description="true: the teacher is frozen, and only an adjuster of its stored labels learns by the feedback: "
        "for a teacher too large to be trained beside a student",
    )
    adjuster_lr: Annotated[float, Field(gt=0)] = Field(
        0.1, description="reduced: learning rate of the adjuster, by plain SGD"
    )
    adjuster_clip: Annotated[float, Field(gt=0)] = Field(
        1.0, description="reduced: largest norm of the adjuster's gradient; what is longer is cut to it"
    )

    @model_validator(mode="before")
    @classmethod
    def _of_preset(cls, values: Any) -> Any:
        """A preset fills in what is not given, and refuses what is given otherwise."""
        preset = PRESETS.get(values.get("preset", "paper")) if isinstance(values, dict) else None
        for name, value in (preset or {}).items():
            if values.get(name, value) != value:
                raise ValueError(f"preset: {values['preset']} has {name}: {value}, found {values[name]}. Leave one out")
        return values if preset is None else values | preset

    @model_validator(mode="after")
    def _fitting(self) -> "MetaPseudoLabels":
        if self.feedback == "exact" and self.labels != "soft":
            raise ValueError("feedback: exact goes through soft labels, found labels: sampled. Write labels: soft")
        if self.feedback == "cosine" and self.labels != "sampled":
            raise ValueError("feedback: cosine is of sampled labels, found labels: soft. Write labels: sampled")
        if self.preset == "paper" and self.labels == "soft" and self.feedback == "difference":
            raise ValueError(
                "labels: soft with feedback: difference has a gradient of exactly 0. Write feedback: exact, or preset: "
                "official_code, which does that"
            )
        for name, other in self.unread.items():
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} = {getattr(self, name)} has no effect beside {other}. Leave it out")
        return self

    @property
    def unread(self) -> dict[str, str]:
        """The settings that nothing reads, each with the setting beside which that is so."""
        of_adjuster = [name for name in type(self).model_fields if name.startswith("adjuster_")]
        released = self.preset == "official_code"
        found = dict.fromkeys(("student_wait", "labelled") if self.reduced else of_adjuster, _said("reduced", self))
        if self.feedback == "exact":
            found["baseline"] = _said("feedback", self)
        if released or self.feedback == "none":  # nobody learns by a feedback
            found |= dict.fromkeys(
                ("scale", "baseline", *of_adjuster), _said("preset" if released else "feedback", self)
            )
        return found


def _said(name: str, section: Section) -> str:
    """A setting as a config file says it."""
    return f"{name}: {str(getattr(section, name)).lower()}"


class TwoViewStudent(Student):
    """A student that sees pool images in two views, without the labels that are stored for them."""

    uda: Uda = Field(..., description="of the config")


class UdaStudent(TwoViewStudent):
    """A student that learns by consistency."""


class MetaStudent(TwoViewStudent):
    """A student and the ``teacher`` that is trained beside it, by consistency too."""

    mpl: MetaPseudoLabels = Field(..., description="of the config")
    teacher: Training = Field(..., description="of the config")

    @property
    def of_teacher(self) -> Training:
        """The teacher's recipe in a training with the student: as many steps, as many images in each.

        It has no average of its weights, since nothing is labelled by it afterwards.
        """
        return self.teacher.model_copy(update={"steps": self.steps, "batch": self.batch, "ema_decay": None})


class ReducedStudent(Student):
    """A student that learns from stored labels, which an adjuster changes."""

    mpl: MetaPseudoLabels = Field(..., description="of the config")


class Adjusting(Training):
    """How the adjuster of a ``ReducedStudent`` is trained: by plain SGD, in the student's steps."""


def adjusting(student: ReducedStudent) -> Adjusting:
    """The adjuster's recipe."""
    plain = Optimizer(name="momentum", lr=student.mpl.adjuster_lr, momentum=0, weight_decay=0, schedule="constant")
    plain = plain.model_copy(update={"clip": student.mpl.adjuster_clip})
    return Adjusting(
        model=student.model,
        steps=student.steps,
        batch=student.batch,
        optimizer=plain,
        precision=student.precision,
    )


def as_method(
    student: Student, method: Method, uda: Uda, mpl: MetaPseudoLabels, teacher: Training | GivenTeacher
) -> Student:
    """The ``student`` as ``method`` trains it."""
    own = {name: getattr(student, name) for name in Student.model_fields}
    if method == "pseudo_label":
        return student.model_copy(update={"targets": "hard"})
    if method == "uda":
        return UdaStudent(**own, uda=uda)
    if method == "meta_pseudo_labels":
        if mpl.reduced:
            return ReducedStudent(**own, mpl=mpl)
        assert isinstance(teacher, Training), "config.Config refuses a given teacher here"
        return MetaStudent(**own, uda=uda, mpl=mpl, teacher=teacher)
    return student
