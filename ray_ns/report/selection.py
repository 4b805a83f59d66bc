"""A selection in words and as data: what was kept of every class, what was dropped and why, how labels changed."""

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from ray_ns.images.known import in_words
from ray_ns.report.table import WIDTH
from ray_ns.store.commit import Commit

SHOWN = 12  # classes of each end in the table
COLUMNS = ("candidates", "over_threshold", "kept", "with_copies", "threshold", "cut")


def as_json(selection: Commit) -> dict[str, Any]:
    """The selection's place, its digest, all its figures, and the classes from which nothing came."""
    per_class = selection.summary["per_class"]
    labels = range(len(per_class["candidates"]))
    return {
        "place": selection.stage,
        "digest": selection.digest,
        **selection.summary,
        "classes_without_candidates": [it for it in labels if not per_class["candidates"][it]],
        "classes_dropped_whole": [it for it in labels if per_class["candidates"][it] and not per_class["kept"][it]],
    }


def show(selection: Commit, names: Sequence[str] | None = None) -> None:
    """Print the report. ``names``: of the classes, where they have any."""
    console = Console(highlight=False, soft_wrap=True, width=WIDTH)
    report = as_json(selection)
    for line in words(report):
        console.print(line, markup=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    quantiles = report["per_class"]["confidence"]
    for name in ("class", *COLUMNS, *quantiles):
        table.add_column(name.replace("_", " "), justify="right")
    for label in shown(report["per_class"]["candidates"]):
        values = [report["per_class"][name][label] for name in COLUMNS]
        table.add_row(
            names[label] if names else str(label),
            *map(_cell, [*values, *(column[label] for column in quantiles.values())]),
        )
    console.print(table)


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
        lines.append(
            f"labels against the round before: {changed:,} of {compared:,} changed ({changed / max(compared, 1):.1%})"
        )
    return lines


def shown(candidates: list[int]) -> list[int]:
    """The classes that a table shows, by candidates: all of them, or the fullest and the scarcest."""
    ordered = sorted(range(len(candidates)), key=lambda label: (-candidates[label], label))
    return ordered if len(ordered) <= 2 * SHOWN else ordered[:SHOWN] + ordered[-SHOWN:]


def _cell(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
