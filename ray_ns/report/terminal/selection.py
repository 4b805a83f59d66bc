"""A selection in words and as JSON: what was kept of each class, what was dropped and why, how labels changed."""

from collections.abc import Sequence
from typing import Any

from ray_ns.artifacts.selection import Selection
from ray_ns.corpora.known import in_words
from ray_ns.printed import say
from ray_ns.report.terminal import columns

SHOWN = 12  # classes in each half of the table
COLUMNS = {
    "labels": "candidates",
    "above": "over_threshold",
    "kept": "kept",
    "with\ncopies": "with_copies",
    "limit": "threshold",
    "cut": "cut",
}  # title in the table: name among the selection's figures


def as_json(selection: Selection) -> dict[str, Any]:
    """The selection's place, its digest, all its figures, and the classes of which nothing was selected."""
    per_class = selection.summary["per_class"]
    labels = range(len(per_class["candidates"]))
    return {
        "place": selection.place,
        "digest": selection.digest,
        **selection.summary,
        "classes_without_candidates": [it for it in labels if not per_class["candidates"][it]],
        "classes_dropped_whole": [it for it in labels if per_class["candidates"][it] and not per_class["kept"][it]],
    }


def show(selection: Selection, names: Sequence[str] | None = None) -> None:
    """Print the report. ``names``: the names of the classes, where they have any."""
    report = as_json(selection)
    for line in words(report):
        say(line)
    of_class = report["per_class"]
    figures = {title: of_class[name] for title, name in COLUMNS.items()} | of_class["confidence"]
    if len(set(figures["limit"])) == 1:
        say(f"threshold of every class: {_cell(figures.pop('limit')[0])}")
    rows = [
        [names[label] if names else str(label), *(_cell(column[label]) for column in figures.values())]
        for label in shown(of_class["candidates"])
    ]
    columns.show(["class", *figures], rows)


def words(report: dict[str, Any]) -> list[str]:
    """The report in a few lines."""
    candidates = sum(report["per_class"]["candidates"])
    dropped = report["dropped"]
    lines = [
        f"{report['place']}: {report['images']:,} of {candidates:,} labelled images kept, {report['copies']:,} with "
        f"copies (rule: {report['rule']})",
        f"dropped: {dropped['below_threshold']:,} below the threshold, {dropped['beyond_quota']:,} beyond the quota",
    ]
    if report["quarantine"]:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in report["quarantine"].items())
        lines.append(f"in quarantine, without a label: {reasons}")
    if report.get("left_out"):
        lines.append(f"of the pool {in_words(report['left_out'])}")
    for name, why in {
        "classes_without_candidates": "classes that no image was labelled as",
        "classes_dropped_whole": "classes of whose images none was kept",
    }.items():
        if report[name]:
            more = f" and {len(report[name]) - SHOWN:,} more" if len(report[name]) > SHOWN else ""
            lines.append(f"{why}: {', '.join(map(str, report[name][:SHOWN]))}{more}")
    if "churn" in report:
        compared, changed = report["churn"]["compared"], report["churn"]["changed"]
        share = f"{changed:,} of {compared:,} changed ({changed / compared:.1%})" if compared else "none to compare"
        lines.append(f"labels against the round before: {share}")
    return lines


def shown(candidates: list[int]) -> list[int]:
    """The classes in the table, by candidates: all, or those with the most and those with the fewest."""
    ordered = sorted(range(len(candidates)), key=lambda label: (-candidates[label], label))
    return ordered if len(ordered) <= 2 * SHOWN else ordered[:SHOWN] + ordered[-SHOWN:]


def _cell(value: float | None) -> str:
    if value is None:
        return "-"
    return columns.count(value) if isinstance(value, int) else f"{value:.3f}"
