"""Noisy Student (Xie et al. 2020, algorithm 1), as one loop of committed stages.

Every line that ``ensure``s a stage returns what is committed where its inputs match, and does the work otherwise; so
the same command resumes a killed run, and a finished run is only read.
"""

from dataclasses import dataclass

from ray_ns.config import Student, Training
from ray_ns.engine.run import Run
from ray_ns.engine.stages.evaluate import evaluate
from ray_ns.engine.stages.label import label
from ray_ns.engine.stages.select import select
from ray_ns.engine.stages.train import finetune, train
from ray_ns.store.commit import Commit

CONTROL = "control"


@dataclass(frozen=True)
class Round:
    """One turn of the loop: its network, how that scored, and the selection it learned from, where there was one."""

    name: str
    recipe: Training
    network: Commit
    scores: Commit
    selection: Commit | None = None

    def top1(self, corpus: str) -> float:
        """Share of right answers, 0..1, on ``validation`` or ``test``."""
        return float(self.scores.summary[corpus]["top1"])


@dataclass(frozen=True)
class Outcome:
    """All rounds, the best of them by validation, and the control; ``complete`` is False where ``until`` ended it."""

    rounds: list[Round]
    best: Round
    control: Round | None
    complete: bool


def noisy_student(run: Run, until: str | None = None) -> Outcome:
    """Turn the loop. ``until``: end after the ``label``, ``select`` or ``train`` stage of round 1."""
    config = run.config
    teacher = _trained(run, 0, "rounds/0", config.teacher, None, None)
    rounds = [teacher]
    labels: Commit | None = None
    chosen: Commit | None = None
    idle = 0
    for number in range(1, config.run.rounds + 1):
        place = f"{run.place}rounds/{number}"
        before, labels = labels, label(run, f"{place}/label", teacher.network, chosen)
        if until == "label":
            return Outcome(rounds, _best(rounds), None, False)
        selection = select(run, f"{place}/select", labels, before, chosen)
        chosen = selection if config.run.mode == "filter_once" else None
        if until == "select":
            return Outcome(rounds, _best(rounds), None, False)
        student = _trained(run, number, place, config.students[number - 1], selection, teacher.network)
        rounds.append(student)
        if until == "train":
            return Outcome(rounds, _best(rounds), None, False)
        idle = 0 if _best(rounds) is student else idle + 1
        if idle >= config.run.patience:
            break
        teacher = _best(rounds)
    control = None
    if config.control.enabled:
        best = _best(rounds).recipe
        recipe = best if isinstance(best, Student) else config.students[0]
        control = _trained(run, config.run.rounds + 1, CONTROL, recipe, None, None)
    return Outcome(rounds, _best(rounds), control, True)


def _trained(
    run: Run, number: int, place: str, recipe: Training, selection: Commit | None, teacher: Commit | None
) -> Round:
    network = train(run, f"{place}/train", recipe, number, selection, teacher)
    if recipe.tuning is not None:
        network = finetune(run, f"{place}/finetune", recipe, number, network)
    return Round(place, recipe, network, evaluate(run, f"{place}/evaluate", network), selection)


def _best(rounds: list[Round]) -> Round:
    """The round with the highest top-1 on validation images; the earlier of two equals. Test images choose nothing."""
    return max(rounds, key=lambda it: it.top1("validation"))
