"""Meta Pseudo Labels: a teacher learns from what its labels did to the student (Pham et al. 2021, section 2).

One step::

    1  the teacher sees labelled images, and each pool image plain and noised; a class is drawn for each noised one
    2  the student learns those classes of the same noised images, and is updated
    3  the feedback: how much lower its loss on the labelled images is than before
    4  the teacher learns: labelled loss + UDA + feedback x cross-entropy of the drawn classes; and is updated

``Reduced`` has no teacher in training. An adjuster changes the stored labels of a frozen one, and learns by 4's last
term alone.

Where this departs from the released code, which has no feedback (``feedback.released``): the labels are drawn from the
view that the feedback's cross-entropy is of; both losses of 3 are of the labelled images alone, in passes that draw the
same noise and leave batch norm's running figures as they are, so that only the update lies between them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ray_ns.config import MetaPseudoLabels, MetaStudent, ReducedStudent, Training
from ray_ns.config.methods import adjusting
from ray_ns.methods.feedback import hard_term, released, sampled
from ray_ns.methods.objectives.lesson import Answer, Lesson, labelled_loss, learn
from ray_ns.methods.objectives.uda import disagreement, labelled_and_two_views
from ray_ns.models.adjuster import Adjuster
from ray_ns.models.loss import smooth
from ray_ns.train.objective import Agree, NetPlan, Source
from ray_ns.train.state import TrainState
from ray_ns.train.step import Share

STUDENT, TEACHER, ADJUSTER = "student", "teacher", "adjuster"


@dataclass(frozen=True)
class Meta:
    """Teacher and student learn together. The student is kept; labelled images teach it in its fine-tuning alone."""

    recipe: MetaStudent
    keeps: ClassVar[str] = STUDENT

    def networks(self) -> Mapping[str, Training | NetPlan]:
        return {STUDENT: NetPlan(self.recipe, delay=self.recipe.mpl.student_wait), TEACHER: self.recipe.of_teacher}

    def sources(self) -> tuple[Source, ...]:
        return labelled_and_two_views(self.recipe)

    def step(self, state: TrainState, share: Share, agree: Agree) -> float:
        recipe, mpl, teacher = self.recipe, self.recipe.mpl, state.nets[TEACHER]
        piece = share.whole()
        labelled, _, noised = piece.pixels.split(share.counts)
        truth, of_pool, _ = piece.targets.split(share.counts)
        logits, plain, given = teacher(piece.pixels).float().split(share.counts)
        loss = disagreement(plain, given, of_pool, recipe.uda, state.step)
        loss = loss + mpl.labelled * labelled_loss(logits, truth, recipe.teacher.label_smoothing)
        if state.step < mpl.student_wait:
            loss.backward()
            return agree(loss.detach(), teacher)["loss"]
        lesson = _lesson(given, of_pool, (noised, labelled), truth, share, recipe)
        answer = learn(state, lesson, mpl, agree)
        loss = loss + _term(given, lesson, answer, mpl)
        loss.backward()
        agree(loss.detach(), teacher)
        return answer.loss


@dataclass(frozen=True)
class Reduced:
    """The student learns from stored labels, adjusted; so two large networks are never trained together."""

    recipe: ReducedStudent
    keeps: ClassVar[str] = STUDENT

    def networks(self) -> Mapping[str, Training | NetPlan]:
        adjuster = NetPlan(adjusting(self.recipe), made=lambda data: Adjuster(data.classes))
        return {STUDENT: self.recipe, ADJUSTER: adjuster}

    def sources(self) -> tuple[Source, ...]:
        recipe = self.recipe
        return Source("labelled", recipe.batch), Source("selection", recipe.batch * recipe.ratio)

    def step(self, state: TrainState, share: Share, agree: Agree) -> float:
        recipe, mpl, adjuster = self.recipe, self.recipe.mpl, state.nets[ADJUSTER]
        piece = share.whole()
        labelled, noised = piece.pixels.split(share.counts)
        truth, stored = piece.targets.split(share.counts)
        given = adjuster(stored.log()).float()
        lesson = _lesson(given, stored, (noised, labelled), truth, share, recipe)
        answer = learn(state, lesson, mpl, agree)
        loss = _term(given, lesson, answer, mpl)
        loss.backward()
        agree(loss.detach(), adjuster)
        return answer.loss


def _lesson(
    given: Tensor,
    of_pool: Tensor,
    pixels: tuple[Tensor, Tensor],
    truth: Tensor,
    share: Share,
    recipe: MetaStudent | ReducedStudent,
) -> Lesson:
    """What the student learns: of the logits ``given``, which are the teacher's of the noised images, or adjusted ones.

    ``of_pool`` (n, classes) and ``truth`` are zeros for images that cannot be read. ``pixels``: of noised pool images,
    and of labelled ones.
    """
    said = given.detach().softmax(1)
    readable = of_pool.any(1)
    if recipe.mpl.labels == "soft":
        return Lesson(*pixels, said, truth, readable)
    drawn = sampled(said, share.uniform(1))
    targets = smooth(drawn, said.shape[1], recipe.label_smoothing)
    return Lesson(*pixels, targets, truth, readable, drawn)


def _term(given: Tensor, lesson: Lesson, answer: Answer, mpl: MetaPseudoLabels) -> Tensor:
    """The feedback's part of the loss of whoever gave the labels: the mean over all images of the pool."""
    if answer.exact is not None:
        return mpl.scale * (given.softmax(1) * answer.exact).sum()
    each = released(given, answer.h) if lesson.drawn is None else hard_term(lesson.drawn, given, answer.h)
    return mpl.scale * torch.where(lesson.readable, each, 0).mean()
