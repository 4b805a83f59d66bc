"""Two moons at full length: what ``ray-ns two-moons`` finds over ten seeds, and the claims made of it.

``--update`` writes the table into docs/RESULTS.md and the picture into docs/design/. The last line is JSON; exit code 1
where a claim does not hold.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from typing import Any

from benchmarks.results import RESULTS, put
from ray_ns.methods.two_moons import Settings
from ray_ns.report.two_moons import picture, rows

PICTURE = RESULTS.parent / "design/two-moons.svg"
ONLY = "no labels: UDA + feedback"
BY_LABELS = ("UDA", "UDA, student without feedback", "UDA, student with feedback")
CHANCE = ("no labels: UDA, feedback 0", "no labels: UDA, feedback flipped")


def held(found: Mapping[str, Mapping[str, Any]], seeds: int) -> dict[str, bool]:
    """Which of the claims hold; ``found``: the rows by name."""
    most = 0.9 * seeds
    return {
        "feedback as the only source of labels: 97 % on 9 of 10 seeds": found[ONLY]["solved"] >= most,
        "without it, or flipped: about 50 % on every seed": all(
            0.4 <= share <= 0.6 for it in CHANCE for share in found[it]["accuracy"]
        ),
        "labels and UDA: 97 % on 9 of 10 seeds, with feedback and without": all(
            found[it]["solved"] >= most for it in BY_LABELS
        ),
        "supervised and pseudo labels: below 90 % in the mean": all(
            found[it]["mean"] < 0.9 for it in ("supervised", "pseudo labels")
        ),
    }


def main() -> None:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--update", action="store_true", help="write the table and the picture into docs/")
    words = parser.parse_args()
    numbers = range(words.seeds)
    trained = list(rows(numbers, Settings(), lambda line: print(line, file=sys.stderr)))
    found = {it.variant.name: it.as_json() for it in trained}
    claims = held(found, words.seeds)
    lines = [f"| seeds 0 to {numbers[-1]} | mean, % | every seed, % | 97 % or more |", "|---|---|---|---|"]
    for name, it in found.items():
        each = " ".join(f"{100 * share:.1f}" for share in it["accuracy"])
        lines.append(f"| {name} | {100 * it['mean']:.1f} | {each} | {it['solved']} of {words.seeds} |")
    print("\n".join(lines))
    if words.update:
        put("two-moons", lines)
        PICTURE.write_text(picture(trained, numbers).svg())
    print(json.dumps({"variants": list(found.values()), "held": claims}))
    sys.exit(not all(claims.values()))


if __name__ == "__main__":
    main()
