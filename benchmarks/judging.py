"""What a run decides on its own few held-out images, against the truth: Fashion-MNIST, 20 labels a class, five draws.

The argument is a folder with Fashion-MNIST's four idx files (Debian: dataset-fashion-mnist). Each draw has other
labelled images, another pool of 4,000 and other 1,500 test images, which no run sees. A run of one round decides on
what it holds out of its 200 labelled images whether the student or the teacher is the best; ``ray-ns evaluate`` then
judges both, and the control, on the 1,500. The better network is the one with the higher top-1 there; where the paired
95 % interval of the two holds 0, either is counted as right. A fork of each run is decided by the rule of earlier
versions. A run that is finished is only read. The table goes into docs/RESULTS.md.
"""

import argparse
import datetime
import gzip
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results import put
from ray_ns.demo import write_shards

ROOT = Path(__file__).resolve().parent.parent
CLASSES, PER_CLASS, POOL, TEST = 10, 20, 4_000, 1_500
SETTINGS = [
    *("run.rounds=1", "data.validation=null", "data.test=null", "data.size=32", "student.ratio=3"),
    *("teacher.steps=300", "student.steps=300", "teacher.noise.flip=true", "student.noise.flip=true"),
    "cluster.object_store_mb=100",
]


def ray_ns(*words: str) -> Any:
    """What a command of ray-ns prints with ``--json``."""
    command = [sys.executable, "-m", "ray_ns", *words, "--json"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def read(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Images, uint8 (n, 28, 28), and labels, int64 (n,), of ``train`` or ``t10k``."""
    pixels = gzip.decompress((folder / f"{part}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / f"{part}-labels-idx1-ubyte.gz").read_bytes())
    return np.frombuffer(pixels, np.uint8, offset=16).reshape(-1, 28, 28), np.frombuffer(labels, np.uint8, offset=8)


def write_draw(source: Path, folder: Path, number: int) -> None:
    """The corpora of one draw, seeded by its ``number``."""
    if (folder / "test").exists():
        return
    rng = np.random.default_rng(1000 + number)
    images, labels = read(source, "train")
    order = rng.permutation(len(images))
    labelled = np.concatenate([order[labels[order] == label][:PER_CLASS] for label in range(CLASSES)])
    pool = order[~np.isin(order, labelled)][:POOL]
    write_shards(folder / "labelled", images[labelled], labels[labelled])
    write_shards(folder / "pool", images[pool], None)
    images, labels = read(source, "t10k")
    kept = rng.permutation(len(images))[:TEST]
    write_shards(folder / "test", images[kept], labels[kept])


def draw(source: Path, folder: Path, number: int, words: list[str]) -> dict[str, Any]:
    """Run one draw and judge it."""
    write_draw(source, folder / "data", number)
    places = [f"data.{name}={folder / 'data' / name}" for name in ("labelled", "pool")]
    asked = ["run", str(ROOT / "configs/demo.yaml"), *SETTINGS, *words, *places, f"run.seed={number}"]
    report = ray_ns(*asked, f"run.dir={folder / 'run'}")
    before = ray_ns(*asked, f"run.dir={folder / 'before'}", "run.promote=validation", "--fork", str(folder / "run"))
    judged = ray_ns("evaluate", str(folder / "run"), "--on", str(folder / "data/test"), "-o", str(folder / "judged"))
    top1 = {row["network"]: row["figures"]["top1"] for row in judged["rows"]}
    against = {it["against"]: it for it in judged["differences"]}
    return {"report": report, "before": before["best"], "top1": top1, "truth": against, "run": number}


def right(best: str, truth: dict[str, Any]) -> tuple[bool, bool]:
    """Whether the network that is kept has the higher top-1, and whether it is at least not shown to be the worse."""
    student = best == "rounds/1"
    points = truth["points"] if student else -truth["points"]
    return points >= 0, truth["verdict"] != ("worse" if student else "better")


def false_claims(it: dict[str, Any]) -> list[str]:
    """Each "better" or "worse" of a run that its interval does not hold, or that the 1,500 images show to be false."""
    said = [(row["against"].replace("rounds/0", "teacher"), row) for row in it["report"]["verdicts"]]
    student = next(row for row in it["report"]["rounds"] if row["round"] == "rounds/1")
    said += [("teacher", student["top1"])] if "top1" in student else []
    opposite = {"better": "worse", "worse": "better"}
    return [
        f"{against}: {row['verdict']} ({row['low']:+.1f} to {row['high']:+.1f})"
        for against, row in said
        if (row["verdict"] == "better" and row["low"] <= 0)
        or (row["verdict"] == "worse" and row["high"] >= 0)
        or it["truth"][against]["verdict"] == opposite.get(row["verdict"])
    ]


def main() -> None:
    """Run the draws, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--draws", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--set", nargs="*", default=[], help="settings laid over those of this file")
    asked = parser.parse_args()
    began = time.monotonic()
    found = [draw(asked.source, asked.folder / str(number), number, asked.set) for number in asked.draws]
    write(table(found), time.monotonic() - began)


def table(found: list[dict[str, Any]]) -> list[str]:
    """A row per draw, then what it comes to."""
    lines = [
        "| draw | teacher | control | student | student - teacher (95 %) | the run keeps | rule of before |",
        "|---|---:|---:|---:|---:|---|---|",
    ]
    called = {"rounds/0": "teacher", "rounds/1": "student"}
    ends = {"kept": [right(it["report"]["best"], it["truth"]["teacher"]) for it in found]}
    ends["before"] = [right(it["before"], it["truth"]["teacher"]) for it in found]
    for it, is_right in zip(found, ends["kept"], strict=True):
        of, truth = it["top1"], it["truth"]["teacher"]
        shares = " | ".join(f"{100 * of[name]:.1f}" for name in ("teacher", "control", "student"))
        word = "better" if is_right[0] else "as good" if is_right[1] else "worse"
        gain = "{:+.1f} ({:+.1f} to {:+.1f})".format(truth["points"], *truth["interval"])
        kept = f"{called[it['report']['best']]}: the {word} one"
        lines.append(f"| {it['run']} | {shares} | {gain} | {kept} | {called[it['before']]} |")
    claims = [claim for it in found for claim in false_claims(it)]

    def told(rule: str) -> str:
        better, no_worse = (sum(it) for it in zip(*ends[rule], strict=True))
        return f"{better} of {len(found)} draws (one that is not shown to be worse: {no_worse})"

    return [
        *lines,
        "",
        f"The network with the higher top-1 on the 1,500 images is kept in {told('kept')}; by the rule of earlier "
        f"versions, in {told('before')}.",
        f"Claims that an interval does not hold, or that the 1,500 images contradict: {'; '.join(claims) or 'none'}.",
    ]


def write(lines: list[str], seconds: float) -> None:
    """Put the table into docs/RESULTS.md, and print it."""
    said = (
        f"Written by `make bench-judging` on {datetime.date.today()}, in {seconds / 60:.0f} minutes. Top-1 in percent."
    )
    put("judging", [said, "", *lines])
    print("\n".join([said, "", *lines]))


if __name__ == "__main__":
    main()
