"""What ``ray-ns study`` prints: a row per variant, beside the run as configured and what the paper found."""

import json
from collections.abc import Mapping
from typing import Any

from ray_ns.observe import in_time
from ray_ns.printed import say
from ray_ns.report.terminal import columns

TITLES = ("variant", "the paper", "top-1\ntest", "points", "95 %", "", "lower\non", "time", "memory")


def show(found: Mapping[str, Any]) -> None:
    """Print what ``engine.study`` found. Differences are to the run as configured, unless a row says to what else."""
    seeds = found["seeds"]
    say(f"runs: {found['folder']}; seeds: {', '.join(map(str, seeds))}")
    base = found["base"]
    say(f"the teacher has {_mean(found['teacher'])} on test, the student as configured {_mean(base)}")
    for name in found["studies"]:
        rows = [_cells(row, len(seeds)) for row in found["rows"] if row["study"] == name]
        say("")
        say(f"study {name}:")
        columns.show(TITLES, rows, names=2)
    say("")
    for line in notes(found):
        say(line)


def notes(found: Mapping[str, Any]) -> list[str]:
    """What the intervals hold and what not."""
    rows = found["rows"]
    if len(found["seeds"]) == 1:
        how = (
            "paired over the test images of one seed. They say nothing of how another training would end: give --seeds"
        )
    else:
        how = "Student's over the seeds' differences. " + (
            "Each seed holds out its own images: give data.validation and data.test to change training alone"
            if found["each_holds_out"]
            else "The seeds change training alone: the data are the same"
        )
    lines = [f"the intervals are {how}."]
    if len(rows) > 1:
        lines.append(f"of {len(rows)} rows about {0.05 * len(rows):.1f} lie beside their interval by chance.")
    for row in rows:
        if back := row.get("set_back"):
            with_ = ", ".join(
                f"{name}: {value if isinstance(value, str) else json.dumps(value)}" for name, value in back.items()
            )
            lines.append(f"{row['variant']}: with {with_}, which its method needs.")
    return lines + [f"left out: {it['study']}, {it['variant']}: {it['why']}" for it in found["left_out"]]


def _cells(row: Mapping[str, Any], seeds: int) -> list[str]:
    beside = "" if row["against"] == "as configured" else f" (against: {row['against']})"
    return [
        row["variant"] + beside,
        row["published"],
        _mean(row["top1"]),
        f"{row['points']:+.1f}",
        f"{row['low']:+.1f} to {row['high']:+.1f}",
        row["word"],
        f"{row['lower']} of {seeds}",
        in_time(row["seconds"]),
        f"{row['memory_mb']:,} MB" if row["memory_mb"] else "-",
    ]


def _mean(values: list[float]) -> str:
    return f"{sum(values) / len(values):.1f}"
