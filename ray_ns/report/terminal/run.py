"""The round-by-round table of a run, beside its fair control."""

from collections.abc import Mapping, Sequence
from typing import Any

from ray_ns.corpora.known import in_words
from ray_ns.evaluate import fixed
from ray_ns.evaluate.calibration import in_words as calibrated_in_words
from ray_ns.export.verdicts import Judged
from ray_ns.methods.outcome import CONTROL, CORPORA, Outcome, Round, is_control, title
from ray_ns.printed import say
from ray_ns.report.terminal import columns

TITLES = ("round", "model", "params", "labels\nkept", "copies", "top-1\nval", "top-1\ntest", "seconds")
FIXRES = ("round", "FixRes", "px", "top-1\nval", "top-1\ntest", "top-1\nshifted")
BY_RULE = {
    "validation": "the best on the validation images",
    "auto": "the last network that the validation images did not show to be worse than its teacher",
    "always": "the last network",
}


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
    if outcome.why is not None:
        say(f"why: {outcome.why}.")
    elif outcome.best is outcome.rounds[0]:
        say("the teacher is kept: no student has more of the validation images right.")
    for pair in judged:
        say(f"{_called(pair.network)} against {_called(pair.against)}, on {pair.corpus}: {pair.in_words}")
    for turn, figures in calibrated.items():
        say(f"as {_called(turn)} labels: {calibrated_in_words(figures)}")
    chosen = next((it.selection for it in outcome.rounds if it.selection), None)
    if chosen is not None and chosen.left_out:
        say(f"of the pool {in_words(chosen.left_out)}.")
    missing = [name for name in CORPORA if outcome.rounds[0].scores.top1(name) is None]
    if missing:
        say(f"not measured on {' and '.join(missing)}: there are no such images (data.held_out: 0).")
    top5 = any("test_top5" in row for row in report["rounds"])
    rows = []
    for it, row, spent in zip(outcome.all, report["rounds"], seconds, strict=True):
        rows.append(
            [
                _title(it) + (" *" if row["best"] else ""),
                row["model"],
                columns.count(row["parameters"]),
                columns.count(row["kept"]) if it.selection else "-",
                columns.count(row["duplicates"]) if it.selection else "-",
                columns.percent(row["validation_top1"]),
                columns.percent(row["test_top1"]),
                *([columns.percent(row["test_top5"])] if top5 else []),
                columns.count(round(spent)),
            ]
        )
    columns.show([*TITLES[:-1], *(["top-5\ntest"] if top5 else []), TITLES[-1]], rows, names=2)
    say(f"* {BY_RULE[outcome.promote]}")
    _show_fixres(outcome.all)


def _show_fixres(rounds: Sequence[Round]) -> None:
    """What FixRes did to the network of each round that has it: every look, and the corrected one against others."""
    corrected = [(it, it.fixed) for it in rounds if it.fixed]
    if not corrected:
        return
    rows = [
        [_title(it), fixed.CALLED[look], str(row["size"]), *(columns.percent(row[on]) for on in fixed.ON)]
        for it, found in corrected
        for look, row in fixed.in_order(found)
    ]
    columns.show(FIXRES, rows, names=2)
    for it, found in corrected:
        for line in fixed.in_words(found)[len(found["looks"]) :]:
            say(f"{_title(it)}: {line}")


def _called(turn: str) -> str:
    """The network of a turn, by its folder, in a sentence."""
    name = turn.rpartition("/")[2]
    if is_control(turn):
        return "the control" if name == CONTROL else f"the {title(turn)}"
    return "the teacher" if name == "0" else f"student {name}"


def _title(it: Round) -> str:
    return title(it.name) if it.recipe else f"{title(it.name)}, given"
