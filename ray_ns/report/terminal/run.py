"""The round-by-round table of a run, beside its fair control."""

from collections.abc import Sequence

from ray_ns.corpora.known import in_words
from ray_ns.methods.outcome import Outcome, Round, is_control
from ray_ns.printed import say
from ray_ns.report.terminal import columns

TITLES = ("round", "model", "params", "labels\nkept", "copies", "top-1\nval", "top-1\ntest", "seconds")


def show(outcome: Outcome, url: str, seconds: Sequence[float]) -> None:
    """Print the folder of the best network, its gains, and the table.

    ``url``: the run's directory. ``seconds``: of each round and of the control, the time of all its stages.
    """
    report = outcome.as_json()
    say(f"best network: {url}/best")
    gains = report["gain_points"]
    if outcome.best is outcome.rounds[0]:
        say("no student was better than its teacher on the validation images: keep the teacher.")
    elif "over_control" in gains:
        say(
            f"best student on test: {gains['over_teacher']:+.1f} points over the teacher, "
            f"{gains['over_control']:+.1f} over the fair control."
        )
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


def _title(it: Round) -> str:
    if is_control(it.name):
        return "control: labels only"
    number = it.name.rsplit("/", 1)[1]
    return "0: teacher" if number == "0" else f"{number}: student"
