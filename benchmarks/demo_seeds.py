"""The demo over five seeds, with and without noise, beside label spreading, and the balance at one label per class.

Runs ``configs/demo.yaml`` for every seed (data and run alike), then the same without any noise in the students, and
writes the tables into docs/RESULTS.md. A run that is already finished is only read, so a killed start goes on. Started
from the repository's root, where its data and runs lie.
"""

import argparse
import datetime
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import spreading
from benchmarks.results import put
from ray_ns.artifacts.report import report_of
from ray_ns.config.read import load
from ray_ns.demo import write_digits
from ray_ns.engine.study import carry_here
from ray_ns.evaluate.figures import student
from ray_ns.methods.outcome import nearest
from ray_ns.store.fork import open_run

NO_NOISE = [
    "run.rounds=1",
    "student.noise.augment=none",
    "student.noise.flip=false",
    "student.model.dropout=0.0",
    "student.model.drop_path=0.0",
    "control.enabled=false",
]


def overrides(seed: int, name: str, per_class: int = 5) -> list[str]:
    """The demo on the digits of ``seed``, which are written where they are not there yet."""
    data = f"data/digits-{seed}" + ("" if per_class == 5 else f"-{per_class}")
    write_digits(Path(data), seed, per_class)
    places = [f"data.{part}={data}/{part}" for part in ("labelled", "validation", "test", "pool")]
    return [f"run.seed={seed}", f"run.dir=runs/seeds/{name}", *places]


def run_demo(
    seed: int, name: str, words: Sequence[str] = (), per_class: int = 5, fork: str | None = None
) -> dict[str, Any]:
    """The report of a run of the demo with other settings: in this process, to the same bytes as through Ray."""
    config = load("configs/demo.yaml", [*overrides(seed, name, per_class), *words])
    started = (Path(config.run.dir) / "run.json").exists()
    carry_here(config, None if started or fork is None else f"runs/seeds/{fork}", "auto")
    store = open_run(config.run.dir)
    report = report_of(store)
    assert report is not None
    return dict(report.value(store))


def points(report: dict[str, Any]) -> dict[str, float]:
    """Top-1 on test, in points, of the teacher, each round, the best by validation, and the control."""
    rows = report["rounds"]
    named = {row["round"].replace("rounds/", "round "): 100 * row["test_top1"] for row in rows}
    named["best"] = next(100 * row["test_top1"] for row in rows if row["best"])
    best_student = nearest(rows)
    assert best_student is not None
    named["best student"] = 100 * best_student["test_top1"]
    return named


def spread(seed: int) -> dict[str, float]:
    """Top-1 on test, in points, of label spreading: by pixels, and by the features of that run's teacher."""
    seen = spreading.of_demo(Path(f"data/digits-{seed}"), Path(f"runs/seeds/{seed}"), Path("configs/demo.yaml"))
    settings = {"pixels": spreading.PIXELS, "features": spreading.FEATURES}
    return {name: spreading.top1(*seen[name], settings[name], "test") for name in settings}


def figure_lines(seeds: list[int], rows: dict[str, list[float]]) -> list[str]:
    """A table of figures: mean, deviation and each seed's."""
    lines = [f"| seeds {', '.join(map(str, seeds))} | mean ± sd | each |", "|---|---|---|"]
    for name, values in rows.items():
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        lines.append(f"| {name} | {statistics.mean(values):.2f} ± {spread:.2f} | {listed(values)} |")
    return lines


def gain_lines(rows: dict[str, list[float]]) -> list[str]:
    """A table of differences: mean, Student's interval over the seeds, and on how many seeds there is a gain."""
    lines = ["| points | mean | 95 % over seeds | a gain on | each |", "|---|---|---|---|---|"]
    for name, values in rows.items():
        mean, many = statistics.mean(values), len(values)
        half = student(many - 1) * statistics.stdev(values) / many**0.5 if many > 1 else float("nan")
        above = sum(value > 0 for value in values)
        told = f"{mean - half:+.2f} to {mean + half:+.2f} | {above} of {many}"
        lines.append(f"| {name} | {mean:+.2f} | {told} | {listed(values)} |")
    return lines


def listed(values: list[float]) -> str:
    """To a tenth of a point."""
    return " ".join(f"{value:.1f}" for value in values)


def main() -> None:
    """Run, then write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    seeds = parser.parse_args().seeds
    noisy = [points(run_demo(seed, f"{seed}")) for seed in seeds]
    clean = [points(run_demo(seed, f"{seed}-no-noise", NO_NOISE, fork=f"{seed}")) for seed in seeds]
    spread_over = [spread(seed) for seed in seeds]
    balance = balance_lines(seeds[0])
    figures = {
        "label spreading on pixels": [it["pixels"] for it in spread_over],
        "teacher (labels only)": [it["round 0"] for it in noisy],
        "fair control (the student's recipe, labels only)": [it["control"] for it in noisy],
        "label spreading on the teacher's features": [it["features"] for it in spread_over],
        "student, round 1": [it["round 1"] for it in noisy],
        "student, round 2": [it.get("round 2", float("nan")) for it in noisy],
        "**best student** (chosen on validation)": [it["best student"] for it in noisy],
        "student without noise, round 1": [it["round 1"] for it in clean],
    }
    pairs = zip(noisy, clean, spread_over, strict=True)
    gains = {
        "best student - teacher": [it["best student"] - it["round 0"] for it in noisy],
        "best student - fair control": [it["best student"] - it["control"] for it in noisy],
        "best student - label spreading on features": [it["best student"] - by["features"] for it, _, by in pairs],
        "student, round 1 - teacher": [it["round 1"] - it["round 0"] for it in noisy],
        "student without noise, round 1 - teacher": [it["round 1"] - it["round 0"] for it in clean],
        "round 1, with noise - without": [it["round 1"] - no["round 1"] for it, no in zip(noisy, clean, strict=True)],
    }
    write(
        [
            f"Written by `make demo-seeds` on {datetime.date.today()}. Top-1 on the 1,000 test digits, in points; each",
            "seed draws other digits for labelled, validation, test and pool. A figure's standard error is about 0.8.",
            "Label spreading is scikit-learn's, its settings chosen on seed 10",
            "([benchmarks/spreading.py](../benchmarks/spreading.py)).",
            "",
            *figure_lines(seeds, figures),
            "",
            *gain_lines(gains),
            "",
            *balance,
        ]
    )


def balance_lines(seed: int) -> list[str]:
    """Counts per class before and after balancing, with one labelled digit per class."""
    words = ["select.threshold=0.3", "run.rounds=1", "control.enabled=false"]
    run_demo(seed, f"{seed}-one-label", words, per_class=1)
    commit = json.loads(Path(f"runs/seeds/{seed}-one-label/rounds/1/select/commit.json").read_text())
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
    """Put ``lines`` into docs/RESULTS.md, and print them."""
    put("demo-seeds", lines)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
