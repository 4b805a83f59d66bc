"""The stages of a run as a method asks for them: ``turn(n).label/select/train/take`` and ``control()``."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

from ray_ns.artifacts.labels import Labels
from ray_ns.artifacts.network import Network
from ray_ns.artifacts.report import report_of
from ray_ns.artifacts.selection import Selection
from ray_ns.config import GivenTeacher, Training
from ray_ns.engine import cards, teachers
from ray_ns.engine.run import Run
from ray_ns.engine.stages.calibrate import Calibrate
from ray_ns.engine.stages.digests import known_images
from ray_ns.engine.stages.evaluate import Evaluate
from ray_ns.engine.stages.finetune import Finetune
from ray_ns.engine.stages.fixres import Fixres
from ray_ns.engine.stages.label import Label
from ray_ns.engine.stages.report import Report
from ray_ns.engine.stages.select import Select
from ray_ns.engine.stages.stage import Stage
from ray_ns.engine.stages.train import Train
from ray_ns.errors import InputError, ResumableError
from ray_ns.export import best
from ray_ns.methods import METHODS
from ray_ns.methods.noisy_student import Turns as MethodTurns
from ray_ns.methods.outcome import CONTROL, Outcome, Round
from ray_ns.store import layout
from ray_ns.store.lease import LeaseLostError

A = TypeVar("A")


class EndedEarlyError(Exception):
    """The stage that ``--until`` names is done."""


@dataclass
class Last:
    """The last labels that were made, where and by which teacher, and their selection."""

    place: str
    teacher: str
    labels: Labels
    selection: Selection | None = None


class Turn:
    """One turn: its folder in the run, and the number that sets its seeds apart from the others'."""

    def __init__(self, turns: "Turns", place: str, number: int) -> None:
        self._turns, self._run, self._place, self._number = turns, turns.run, place, number

    def label(self, teacher: Network, only: Selection | None) -> Labels:
        """See ``methods.noisy_student.Turn``."""
        last = self._turns.last
        if last is not None and last.teacher == teacher.digest and self._run.format >= layout.FAITHFUL:
            self._run.reporter.note(f"{self._place}: its teacher is that of {last.place}, and so are its labels")
            return last.labels
        calibration = None
        if self._run.config.label.temperature == "auto":
            found = Calibrate(teacher)
            calibration = self._run.ensure(found.place, found)
        others = teachers.members(self._run)
        stage = Label(teacher, known_images(self._run), only, calibration=calibration, others=others)
        labels = self._ensure(stage)
        self._turns.last = Last(self._place, teacher.digest, labels)
        self._turns.end_here()
        return labels

    def select(self, labels: Labels, before: Labels | None, chosen: Selection | None) -> Selection:
        """See ``methods.noisy_student.Turn``."""
        last = self._turns.last
        assert last is not None, "labels are made before they are selected"
        if last.selection is None:
            last.selection = self._ensure(Select(labels, before, chosen))
        self._turns.end_here()
        return last.selection

    def train(self, recipe: Training, selection: Selection | None, teacher: Network | None) -> Round:
        """See ``methods.noisy_student.Turn``."""
        network = self._ensure(Train(recipe, self._number, selection, teacher))
        if recipe.tuning is not None:
            network = self._ensure(Finetune(recipe, self._number, network))
        fixed = None
        if recipe.fixing is not None:
            fixed = self._ensure(Fixres(recipe, self._number, network))
            network = fixed.network
        return self._made(network, recipe, selection, fixed.figures if fixed else None)

    def take(self, given: GivenTeacher) -> Round:
        """See ``methods.noisy_student.Turn``."""
        return self._made(teachers.first(self._run, given))

    def _made(
        self,
        network: Network,
        recipe: Training | None = None,
        selection: Selection | None = None,
        fixed: Mapping[str, Any] | None = None,
    ) -> Round:
        made = Round(self._place, recipe, network, self._ensure(Evaluate(network)), selection, fixed)
        self._turns.made.append(made)
        self._turns.end_here()
        return made

    def _ensure(self, stage: Stage[A]) -> A:
        return self._run.ensure(f"{self._place}/{stage.name}", stage)


class Turns:
    """All turns of a run. ``made``: the rounds so far. ``last``: for a round with the teacher of the one before."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.made: list[Round] = []
        self.last: Last | None = None

    @property
    def exact(self) -> bool:
        """See ``methods.noisy_student.Turns``."""
        return self.run.format >= layout.EXACT

    @property
    def beside(self) -> bool:
        """See ``methods.noisy_student.Turns``."""
        return self.run.format >= layout.BESIDE

    def turn(self, number: int) -> Turn:
        """The teacher's turn 0 does not depend on the pool; every other one lies with the pool as it is now."""
        place = self.run.place if number else ""
        return Turn(self, f"{place}rounds/{number}", number)

    def control(self, name: str = "") -> Turn:
        """The fair control's turn; ``name``: another control's, which differs from round 1 in its recipe alone."""
        if name:
            return Turn(self, f"{self.run.place}{CONTROL}-{name}", 1)
        return Turn(self, f"{self.run.ending}{CONTROL}", self.run.config.run.rounds + 1)

    def tell(self, words: str) -> None:
        """Say it, once: not again where all that is left is to read what was made."""
        if report_of(self.run.store) is None:
            self.run.reporter.note(words)

    def end_here(self) -> None:
        """Raise ``EndedEarlyError`` where the stage that ``--until`` names is done."""
        if self.run.until_reached:
            raise EndedEarlyError


def carry_out(run: Run) -> Outcome:
    """Run the method to its end, or to ``run.until``. Commits the report of a complete run, and keeps ``best/``."""
    turns = Turns(run)
    try:
        # A method knows of artifacts only what it needs; what it hands back here are those that came from here.
        made = METHODS[run.config.run.method](cast(MethodTurns, turns), run.config)
        outcome = replace(made, exact=turns.exact)
    except EndedEarlyError:
        run.taking.tell()
        cards.keep(run)
        return Outcome(turns.made, run.config.run.promote, complete=False, exact=turns.exact)
    finished = report_of(run.store) is not None
    if not finished:
        best.take_down(run.store, run.lease.check)
    run.ensure(f"{run.place}{run.ending}{Report.name}", Report(outcome))
    run.taking.tell()
    _keep_best(run, finished)
    cards.keep(run)
    return outcome


def _keep_best(run: Run, finished: bool) -> None:
    """Make ``best/`` where it is not whole. A run that was finished may lie where nobody can write: that is told."""
    report = report_of(run.store)
    if report is None or best.is_whole(run.store, report):
        return
    try:
        best.put(run.store, report, run.lease.check)
    except (InputError, ResumableError) as error:
        if not finished or isinstance(error, LeaseLostError):
            raise
        run.reporter.warn(f"{run.store.url}/best is not there whole, and cannot be written: {error}")
