"""Noisy Student: a teacher labels the pool, a noised student learns from it, the student becomes the teacher.

Xie et al. 2020, "Self-training with Noisy Student improves ImageNet classification", algorithm 1. The numbers in
``noisy_student`` are the algorithm's steps. A stage that is already committed returns at once, so the same call resumes
a killed run and reads a finished one.
"""

from typing import Protocol

from ray_ns.config import Config, GivenTeacher, Student, Training
from ray_ns.evaluate.promotion import decide
from ray_ns.methods.outcome import Labels, Network, Outcome, Round, Selection


class Turn(Protocol):
    """The stages of one turn of the loop, each on what it is given."""

    def label(self, teacher: Network, only: Selection | None) -> Labels:
        """The pool's labels by the teacher, which is not noised; ``only``: of the images of that selection."""

    def select(self, labels: Labels, before: Labels | None, chosen: Selection | None) -> Selection:
        """The confident labels (threshold), balanced by class. ``before``: the last labels, for how they changed.

        ``chosen``: the selection to which the labels were restricted; its images stay.
        """

    def train(self, recipe: Training, selection: Selection | None, teacher: Network | None) -> Round:
        """Train by the recipe, fine-tune where it says so, evaluate. No ``selection``: on labelled images alone.

        ``teacher``: whose weights it begins with, where the recipe says so.
        """

    def take(self, given: GivenTeacher) -> Round:
        """Take the network that is given, as it is; evaluate."""


class Turns(Protocol):
    """All that the method may use: the turns by number, 0 being the teacher's, and the control's.

    ``tell`` says something to whoever started the run. ``exact``: see ``evaluate.promotion.decide``. ``beside``:
    whether the controls of a method with one student are compared with that one, and none repeats it; False in runs up
    to FORMAT 5.
    """

    @property
    def exact(self) -> bool: ...
    @property
    def beside(self) -> bool: ...
    def turn(self, number: int) -> Turn: ...
    def control(self, name: str = "") -> Turn:
        """Of the fair control; ``name``: of another one, which has the seeds of round 1."""

    def tell(self, words: str) -> None: ...


def noisy_student(turns: Turns, config: Config) -> Outcome:
    """Run algorithm 1 for up to ``run.rounds`` rounds, then the control."""
    # 1. Train a teacher on the labelled images, or take the one that is given.
    rounds = [first_teacher(turns, config)]
    teacher, idle = rounds[0], 0
    labels: Labels | None = None
    chosen: Selection | None = None
    for number, recipe in enumerate(config.students, 1):
        turn = turns.turn(number)
        # 2. The teacher labels the pool; the confident labels are selected and balanced.
        before, labels = labels, turn.label(teacher.network, chosen)
        selection = turn.select(labels, before, chosen)
        if config.run.mode == "filter_once":  # the first teacher chooses the images, later ones label them again
            chosen = selection
        # 3. Train an equal or larger student, noised, on labelled and pseudo-labelled images together.
        rounds.append(turn.train(recipe, selection, teacher.network))
        # 4. Promote: the student becomes the teacher, unless the validation images speak against it (run.promote).
        is_promoted = promoted(turns, config, rounds[-1], teacher)
        teacher, idle = (rounds[-1], 0) if is_promoted else (teacher, idle + 1)
        if idle >= config.run.patience:
            break
    made = [control(turns, config, rounds[0], teacher)] if config.control.enabled else []
    return Outcome(rounds, config.run.promote, made)


def first_teacher(turns: Turns, config: Config) -> Round:
    """The teacher of round 0: trained on labelled images, or given."""
    turn, recipe = turns.turn(0), config.teacher
    return turn.train(recipe, None, None) if isinstance(recipe, Training) else turn.take(recipe)


def promoted(turns: Turns, config: Config, student: Round, teacher: Round) -> bool:
    """Whether the ``student`` becomes the teacher, which is told."""
    decided = decide(config.run.promote, student.scores, teacher.scores, turns.exact)
    turns.tell(f"student {student.name.rpartition('/')[2]} {decided.told}")
    return decided.promoted


def control(turns: Turns, config: Config, first: Round, winner: Round) -> Round:
    """The fair control: the best student's recipe, or the first student's where the teacher stays, without the pool."""
    recipe = winner.recipe if isinstance(winner.recipe, Student) else config.students[0]
    return turns.control().train(recipe, None, first.network)
