"""The round-by-round table of a run, beside its fair control."""

from collections.abc import Mapping, Sequence
from typing import Any

from ray_ns.corpora.known import in_words
from ray_ns.evaluate.calibration import in_words as calibrated_in_words
from ray_ns.export.verdicts import Judged
from ray_ns.methods.outcome import Outcome, Round, is_control
from ray_ns.printed import say
from ray_ns.report.terminal import columns

TITLES = ("round", "model", "params", "labels\nkept", "copies", "top-1\nval", "top-1\ntest", "seconds")


def show(
    outcome: Outcome,
    url: str,
    seconds: Sequence[float],
    judged: Sequence[Judged],
    calibrated: Mapping[str, Mapping[str, Any]],
) -> None:
    """Print the folder of the best network, its gains with what they allow to say, and the table.

    ``url``: the run's directory. ``seconds``: of each round and of the control, the time of all its stages.
    ``judged``: how its networks compare. ``calibrated``: the figures of the temperatures that were found, by the
    folder of the network's turn.
    """
    report = outcome.as_json()
    say(f"best network: {url}/best")
    if outcome.best is outcome.rounds[0]:
        say("the teacher is kept: no student has more of the validation images right.")
    for pair in judged:
        say(f"{_called(pair.network)} against {_called(pair.against)}, on {pair.corpus}: {pair.verdict.in_words}")
    for turn, figures in calibrated.items():
        say(f"as {_called(turn)} labels: {calibrated_in_words(figures)}")
    chosen = next((it.selection for it in outcome.rounds if it.selection), None)
    if chosen is not None and chosen.left_out:
        say(f"of the pool {in_words(chosen.left_out)}.")
    rows = []
    for it, row, spent in zip(outcome.all, report["rounds"], seconds, strict=True):
        rows.append(
            [
                _title(it) + (" *" if row["best"] else ""),
                row["model"],
                columns.count(row["parameters"]),
                columns.count(row["kept"]) if it.selection else "-",
                columns.count(row["duplicates"]) if it.selection else "-",
                f"{100 * row['validation_top1']:.1f}",
                f"{100 * row['test_top1']:.1f}",
                columns.count(round(spent)),
            ]
        )
    columns.show(TITLES, rows, names=2)
    say("* the best on the validation images")


def _called(turn: str) -> str:
    """The network of a turn, by its folder, in a sentence."""
    number = turn.rpartition("/")[2]
    return "the control" if is_control(turn) else "the teacher" if number == "0" else f"student {number}"


def _title(it: Round) -> str:
    if is_control(it.name):
        return "control: labels only"
    number = it.name.rsplit("/", 1)[1]
    return "0: teacher" if number == "0" else f"{number}: student"
