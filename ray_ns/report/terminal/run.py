"""The round-by-round table of a run, beside its fair control."""

from typing import Any

from ray_ns.config import Training
from ray_ns.corpora.known import in_words
from ray_ns.engine.run import Run
from ray_ns.methods.noisy_student import CONTROL, Outcome, Round
from ray_ns.models.files import CONFIG, WEIGHTS
from ray_ns.printed import say
from ray_ns.report.terminal import columns
from ray_ns.seals import canonical
from ray_ns.store.commit import Commit, Output

REPORT = "report.json"
TITLES = ("round", "model", "params", "labels\nkept", "copies", "top-1\nval", "top-1\ntest", "seconds")


def commit_report(run: Run, outcome: Outcome) -> Commit:
    """The committed report of a complete run; its digest stands for everything the run made."""
    value = as_json(outcome)

    def work(stage: Output) -> tuple[dict[str, Any], int]:
        stage.publish(0, {REPORT: canonical(value)}, {})
        return {}, 1

    stages = [digest for it in _all(outcome) for digest in (it.network.digest, it.scores.digest)]
    return run.ensure(f"{run.place}report", {"stages": stages, "report": value}, work)


def as_json(outcome: Outcome) -> dict[str, Any]:
    """The report as JSON values: a row per round, the best by validation, and its gains on test in points."""
    gains = {"over_teacher": _points(outcome.best, outcome.rounds[0])}
    if outcome.control is not None:
        gains["over_control"] = _points(outcome.best, outcome.control)
    return {
        "rounds": [_row(it, it is outcome.best) for it in _all(outcome)],
        "best": outcome.best.name,
        "best_model": outcome.best.network.parts[0].objects[CONFIG].key.rsplit("/", 1)[0],
        "best_weights_sha256": outcome.best.network.parts[0].objects[WEIGHTS].sha256,
        "gain_points": gains,
    }


def show(run: Run, outcome: Outcome) -> None:
    """Print where the best network lies, what it gains, and the table."""
    report = as_json(outcome)
    say(f"best network (timm loads it as local-dir:): {run.store.url}/{report['best_model']}")
    gains = report["gain_points"]
    if outcome.best is outcome.rounds[0]:
        say("no student was better than its teacher on the validation images: keep the teacher.")
    elif "over_control" in gains:
        say(
            f"best student on test: {gains['over_teacher']:+.1f} points over the teacher, "
            f"{gains['over_control']:+.1f} over the fair control."
        )
    chosen = next((it.selection for it in outcome.rounds if it.selection), None)
    left_out = chosen.summary.get("left_out") if chosen else None
    if left_out:
        say(f"of the pool {in_words(left_out)}.")
    rows = []
    for it, row in zip(_all(outcome), report["rounds"], strict=True):
        seconds = sum(
            run.seconds(f"{it.name}/{stage}") for stage in ("label", "select", "train", "finetune", "evaluate")
        )
        rows.append(
            [
                _title(it) + (" *" if row["best"] else ""),
                row["model"],
                columns.count(row["parameters"]),
                columns.count(row["kept"]) if it.selection else "-",
                columns.count(row["duplicates"]) if it.selection else "-",
                f"{100 * row['validation_top1']:.1f}",
                f"{100 * row['test_top1']:.1f}",
                columns.count(round(seconds)),
            ]
        )
    columns.show(TITLES, rows, names=2)
    say("* the best on the validation images")


def _all(outcome: Outcome) -> list[Round]:
    return outcome.rounds + ([outcome.control] if outcome.control else [])


def _row(it: Round, best: bool) -> dict[str, Any]:
    recipe: Training = it.recipe
    kept = it.selection.summary["images"] if it.selection else 0
    copies = it.selection.summary["copies"] if it.selection else 0
    return {
        "round": it.name,
        "model": recipe.model.name,
        "parameters": it.network.summary["parameters"],
        "kept": kept,
        "duplicates": copies - kept,
        "validation_top1": it.top1("validation"),
        "test_top1": it.top1("test"),
        "best": best,
    }


def _title(it: Round) -> str:
    if it.name == CONTROL:
        return "control: labels only"
    number = it.name.rsplit("/", 1)[1]
    return "0: teacher" if number == "0" else f"{number}: student"


def _points(one: Round, other: Round) -> float:
    return round(100 * (one.top1("test") - other.top1("test")), 6)
