"""The stages of a run, one a file. The order here is theirs in ``check``, ``status``, ``--until`` and the table."""

from ray_ns.config import Config
from ray_ns.engine.stages.calibrate import Calibrate
from ray_ns.engine.stages.counts import Counts
from ray_ns.engine.stages.digests import Digest
from ray_ns.engine.stages.evaluate import Evaluate
from ray_ns.engine.stages.finetune import Finetune
from ray_ns.engine.stages.fixres import Control, Fixres, Tuned
from ray_ns.engine.stages.label import Label
from ray_ns.engine.stages.network import Copy
from ray_ns.engine.stages.report import Report
from ray_ns.engine.stages.select import Select
from ray_ns.engine.stages.stage import Stage
from ray_ns.engine.stages.train import Train
from ray_ns.errors import InputError

BEFORE: tuple[type[Stage], ...] = (Copy, Digest)  # all turns: what a prediction begins with, and what a run does
TURN: tuple[type[Stage], ...] = (Label, Counts, Select, Train, Finetune, Tuned, Control, Fixres, Evaluate, Calibrate)
AFTER: tuple[type[Stage], ...] = (Report,)  # the last turn


def names() -> list[str]:
    """The names of all stages, in order."""
    return [stage.name for stage in (*BEFORE, *TURN, *AFTER)]


def of_turn() -> list[type[Stage]]:
    """The stages of a turn that are no part of another one, which counts their seconds and ends with them."""
    return [stage for stage in TURN if "/" not in stage.name]


def check_until(until: str, config: Config) -> None:
    """Raise ``InputError`` where round 1 of the run has no stage called ``until``."""
    known = [stage.name for stage in of_turn() if stage.in_round(config)]
    if until not in known:
        raise InputError(f"--until {until}: expected a stage that round 1 of this run has: {', '.join(known)}.")
