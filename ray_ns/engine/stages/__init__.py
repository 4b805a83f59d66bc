"""The stages of a run, one a file. The order here is theirs in ``check``, ``status``, ``--until`` and the table."""

from ray_ns.engine.stages.counts import Counts
from ray_ns.engine.stages.digests import Digest
from ray_ns.engine.stages.evaluate import Evaluate
from ray_ns.engine.stages.finetune import Finetune
from ray_ns.engine.stages.label import Label
from ray_ns.engine.stages.report import Report
from ray_ns.engine.stages.select import Select
from ray_ns.engine.stages.stage import Stage
from ray_ns.engine.stages.train import Train
from ray_ns.errors import InputError

BEFORE: tuple[type[Stage], ...] = (Digest,)  # the first turn
TURN: tuple[type[Stage], ...] = (Label, Counts, Select, Train, Finetune, Evaluate)
AFTER: tuple[type[Stage], ...] = (Report,)  # the last turn


def names() -> list[str]:
    """The names of all stages, in order."""
    return [stage.name for stage in (*BEFORE, *TURN, *AFTER)]


def check_name(until: str | None) -> None:
    """Raise ``InputError`` where ``until`` is no stage of a turn."""
    known = [stage.name for stage in TURN]
    if until is not None and until not in known:
        raise InputError(f"--until {until}: expected a stage of a turn, one of {', '.join(known)}.")
