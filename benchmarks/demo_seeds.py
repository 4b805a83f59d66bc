"""The demo over five seeds, with and without noise, and the class balance at one label per class.

Runs ``configs/demo.yaml`` for every seed (data and run alike), then the same without any noise in the students, and
writes the tables into docs/RESULTS.md. A run that is already finished is only read, so a killed start goes on.
"""

import argparse
import datetime
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from ray_ns.methods.outcome import nearest

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "RESULTS.md"
BEGIN, END = "<!-- demo-seeds: begin -->", "<!-- demo-seeds: end -->"
NO_NOISE = [
    "run.rounds=1",
    "student.noise.augment=none",
    "student.noise.flip=false",
    "student.model.dropout=0.0",
    "student.model.drop_path=0.0",
    "control.enabled=false",
]


def ray_ns(*words: str) -> str:
    """The output of one command line of ray-ns; its progress goes to this terminal."""
    command = [str(Path(sys.executable).with_name("ray-ns")), *words]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT).stdout


def run_demo(seed: int, name: str, per_class: int = 5, *words: str) -> dict[str, Any]:
    """The report of one run of the demo's config on the digits of ``seed``."""
    data = f"data/digits-{seed}" + ("" if per_class == 5 else f"-{per_class}")
    ray_ns("demo-data", data, "--seed", str(seed), "--per-class", str(per_class))
    places = [f"data.{part}={data}/{part}" for part in ("labelled", "validation", "test", "pool")]
    return json.loads(
        ray_ns("run", "configs/demo.yaml", f"run.seed={seed}", f"run.dir=runs/seeds/{name}", *places, *words, "--json")
    )


def points(report: dict[str, Any]) -> dict[str, float]:
    """Top-1 on test, in points, of the teacher, each round, the best by validation, and the control."""
    rows = report["rounds"]
    named = {row["round"].replace("rounds/", "round "): 100 * row["test_top1"] for row in rows}
    named["best"] = next(100 * row["test_top1"] for row in rows if row["best"])
    student = nearest(rows)
    assert student is not None
    named["best student"] = 100 * student["test_top1"]
    return named


def main() -> None:
    """Run, then write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    seeds = parser.parse_args().seeds
    noisy = [points(run_demo(seed, f"{seed}")) for seed in seeds]
    clean = [points(run_demo(seed, f"{seed}-no-noise", 5, *NO_NOISE)) for seed in seeds]
    rows = {
        "teacher (labels only)": [it["round 0"] for it in noisy],
        "fair control (the student's recipe, labels only)": [it["control"] for it in noisy],
        "student, round 1": [it["round 1"] for it in noisy],
        "student, round 2": [it.get("round 2", float("nan")) for it in noisy],
        "**best student** (chosen on validation)": [it["best student"] for it in noisy],
        "student without noise, round 1": [it["round 1"] for it in clean],
        "best student - teacher": [it["best student"] - it["round 0"] for it in noisy],
        "best student - fair control": [it["best student"] - it["control"] for it in noisy],
        "student, round 1 - teacher": [it["round 1"] - it["round 0"] for it in noisy],
        "student without noise, round 1 - teacher": [it["round 1"] - it["round 0"] for it in clean],
    }
    lines = [
        f"Written by `make demo-seeds` on {datetime.date.today()}. Top-1 on the 1,000 test digits, in points; each",
        "seed draws other digits for labelled, validation, test and pool. One figure's standard error is about 0.8.",
        "",
        f"| seeds {', '.join(map(str, seeds))} | mean ± sd | each |",
        "|---|---|---|",
    ]
    for name, values in rows.items():
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        each = " ".join(f"{value:.1f}" for value in values)
        lines.append(f"| {name} | {statistics.mean(values):.2f} ± {spread:.2f} | {each} |")
    lines += ["", *balance_lines(seeds[0])]
    write(lines)


def balance_lines(seed: int) -> list[str]:
    """Counts per class before and after balancing, with one labelled digit per class."""
    words = ["select.threshold=0.3", "run.rounds=1", "control.enabled=false"]
    run_demo(seed, f"{seed}-one-label", 1, *words)
    commit = json.loads((ROOT / f"runs/seeds/{seed}-one-label/rounds/1/select/commit.json").read_text())
    counts = commit["summary"]["per_class"]
    titles = {
        "candidates": "labelled as",
        "over_threshold": "at or over 0.3",
        "kept": "distinct images kept",
        "with_copies": "with copies",
    }
    lines = [
        f"The balance at one label per class (seed {seed}, threshold 0.3), images per predicted class:",
        "",
        "| class | " + " | ".join(map(str, range(10))) + " |",
        "|---|" + "---|" * 10,
    ]
    return lines + [f"| {title} | " + " | ".join(map(str, counts[name])) + " |" for name, title in titles.items()]


def write(lines: list[str]) -> None:
    """Put ``lines`` between the markers of docs/RESULTS.md."""
    before, _, rest = RESULTS.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    RESULTS.write_text(before + "\n".join([BEGIN, *lines, END]) + after)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
