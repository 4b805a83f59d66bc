"""A study's table in docs/RESULTS.md.

    ray-ns study CONFIG NAMES --json | python -m benchmarks.study_table MARK

What ``ray-ns study`` compared comes between ``<!-- MARK: begin -->`` and its end, and on the terminal.
"""

import datetime
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.results import put
from ray_ns.methods.study import BASE

NOISY_STUDENT = "Noisy Student, one round"  # what the base run is among other methods


def lines(found: Mapping[str, Any]) -> list[str]:
    """The table in Markdown, of what ``engine.study.study`` returns."""
    configured = NOISY_STUDENT if found["studies"] == ["methods"] else BASE
    seeds = found["seeds"]
    over = "over the seeds" if len(seeds) > 1 else "paired over the test images"
    rows = [
        f"| seeds {', '.join(map(str, seeds))} | top-1, each | points against it (95 %, {over}) | below it on "
        "| published, points | seconds | MB |",
        "|---|---|---|---|---|---|---|",
        f"| the first teacher | {each(found['teacher'])} | | | | | |",
        f"| {configured} | {each(found['base'])} | | | | | |",
    ]
    for row in found["rows"]:
        against = "" if row["against"] == BASE else f", against {row['against']}"
        told = f"{row['points']:+.1f} ({row['low']:+.1f} to {row['high']:+.1f}): {row['word']}"
        memory = f"{row['memory_mb']:,}" if row["memory_mb"] else ""
        rows.append(
            f"| {row['variant']}{against} | {each(row['top1'])} | {told} | {row['lower']} of {len(seeds)} "
            f"| {row['published']} | {row['seconds']:.0f} | {memory} |"
        )
    return rows + [f"| {it['variant']} | | left out: {it['why']} | | | | |" for it in found.get("left_out", ())]


def each(values: Sequence[float]) -> str:
    """Every seed's figure, to a tenth."""
    return " ".join(f"{value:.1f}" for value in values)


def main() -> None:
    """Read, write, print."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    told = sys.stdin.read().splitlines()
    if not told:
        sys.exit("Nothing was compared: ray-ns study has printed no JSON.")
    table = [f"Of {datetime.date.today()}.", "", *lines(json.loads(told[-1]))]
    print("\n".join(table))
    put(sys.argv[1], table)


if __name__ == "__main__":
    main()
