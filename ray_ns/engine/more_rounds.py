"""A run that goes on for more rounds than it has: ``run.rounds`` alone may grow, where a round would still be done."""

from collections.abc import Mapping, Sequence
from typing import Any

from ray_ns.artifacts.report import report_of
from ray_ns.config import Config, Settings
from ray_ns.config.run import Run as RunSettings
from ray_ns.errors import InputError
from ray_ns.methods.outcome import is_control
from ray_ns.store.objects import ObjectStore


def differences_but_more(settings: Settings, record: Mapping[str, Any], config: Config) -> list[str]:
    """What differs from a run's record of its settings, but for more rounds than it has."""
    found = settings.differences(record, config)
    return [row for row in found if not (row.startswith("run.rounds:") and more(record, config))]


def more(record: Mapping[str, Any], config: Config) -> bool:
    """Whether ``config`` has more rounds than a run's record of its settings."""
    before: int = record["run"].get("rounds", RunSettings.model_fields["rounds"].default)
    return config.run.rounds > before


def refuse_none(store: ObjectStore, config: Config) -> None:
    """Raise ``InputError`` where ``run.patience`` has ended the run, so that no further round would be done."""
    report = report_of(store)
    if report is None:
        return
    rows = [row for row in report.value(store)["rounds"] if not is_control(row["round"])]
    idle = _idle(rows)
    if idle >= config.run.patience:
        why = "worse than their teacher" if "promoted" in rows[-1] else "no better"
        raise InputError(
            f"run.rounds = {config.run.rounds}: {store.url} ended after round {len(rows) - 1}, since run.patience = "
            f"{config.run.patience}: {idle} rounds in a row were {why} on the validation images. More rounds would "
            f"change nothing. A new run.dir with a higher run.patience and --fork {store.url} goes on from there."
        )


def _idle(rows: Sequence[Mapping[str, Any]]) -> int:
    """How many of the last rounds in a row have promoted no student; ``rows``: of a report, without the control's."""
    if "promoted" in rows[-1]:
        return next((at for at, row in enumerate(reversed(rows)) if row.get("promoted", True)), len(rows))
    tops = [row["validation_top1"] for row in rows]
    return len(tops) - 1 - tops.index(max(tops))
