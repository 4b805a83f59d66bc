"""What ``ray-ns evaluate`` prints: a table per kind of suites, then how the student differs from the others."""

from collections.abc import Mapping
from typing import Any

from ray_ns.printed import say
from ray_ns.report.terminal import columns

MISTAKES = 5  # pairs of classes that are named


def show(report: Mapping[str, Any], url: str, names: Mapping[str, Any]) -> None:
    """Print the report of ``stages.judged_report``.

    ``names``: ``suites``, what each row's suite is called, by its folder; ``classes``, by number, or None.
    """
    rows = report["rows"]
    columns.show(
        ("on", "network", "images", "top-1", "95 % interval", "top-5", "ECE", "NLL"),
        [[names["suites"][row["folder"]], row["network"], *_cells(row["figures"])] for row in rows],
        names=2,
    )
    say("top-1 and top-5 in %, with Wilson's interval; ECE: calibration error in 15 bins, in points; NLL: in nats")
    unreadable = max(row["figures"]["unreadable"] for row in rows)
    if unreadable:
        say(f"up to {unreadable:,} images cannot be read: they count as wrong in top-1 and top-5, and in nothing else")
    for row in rows:
        _mistakes(row, names)
    differences(report, names)
    say(f"tables of what was said of each image, confusion and reliability: {url}")


def differences(report: Mapping[str, Any], names: Mapping[str, Any]) -> None:
    """Print by how much the student differs from the others."""
    for it in report["differences"]:
        interval = "no interval" if it["interval"] is None else f"{it['interval'][0]:+.1f} to {it['interval'][1]:+.1f}"
        say(
            f"{names['suites'][it['folder']]}: {it['figure']} of the student less that of the {it['against']}: "
            f"{it['points']:+.1f} points ({interval}): {it['verdict']}"
        )


def _cells(figures: Mapping[str, Any]) -> list[str]:
    low, high = figures["top1_interval"]
    return [
        f"{figures['images']:,}",
        f"{100 * figures['top1']:.1f}",
        f"{100 * low:.1f} to {100 * high:.1f}",
        _number(figures["top5"], 100, 1),
        _number(figures["calibration_error"], 100, 1),
        _number(figures["nll"], 1, 3),
    ]


def _number(value: float | None, scale: float, places: int) -> str:
    return "-" if value is None else f"{scale * value:.{places}f}"


def _mistakes(row: Mapping[str, Any], names: Mapping[str, Any]) -> None:
    found = row["figures"]["confused"][:MISTAKES]
    if found:
        said = ", ".join(f"{_called(true, names)} as {_called(label, names)} {count:,}" for true, label, count in found)
        say(f"{names['suites'][row['folder']]}, {row['network']}: most often takes {said}")


def _called(label: int, names: Mapping[str, Any]) -> str:
    return str(names["classes"][label]) if names["classes"] else str(label)
