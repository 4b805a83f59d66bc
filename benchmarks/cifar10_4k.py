"""CIFAR-10 with 4,000 labels: every method by one recipe, and what others published beside it.

    python -m benchmarks.cifar10_4k FOLDER [--update]     (FOLDER: CIFAR-10's Parquet files; or RAY_NS_CIFAR10)

``benchmarks/cifar10_4k.yaml`` through the study ``methods``, in this process by one thread, so that seconds are CPU
seconds. ``--update`` writes the table into docs/RESULTS.md and the curves into docs/design/. A run that is finished is
only read.
"""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks import split
from benchmarks.results import RESULTS, put
from benchmarks.study_table import NOISY_STUDENT, lines
from ray_ns.config import Config
from ray_ns.engine.fanout import Here
from ray_ns.engine.opening import drive
from ray_ns.engine.predict import in_this_process
from ray_ns.engine.study import study
from ray_ns.engine.turns import carry_out
from ray_ns.methods.study import Variant
from ray_ns.observe import Mode
from ray_ns.report.drawing import INK, PALE, Drawing
from ray_ns.store.commit import find_commit
from ray_ns.store.fork import open_run

CONFIG, DATA = Path("benchmarks/cifar10_4k.yaml"), Path("data/bench-cifar10-4k")
PICTURE = RESULTS.parent / "design/cifar10-4k.svg"
# With a WideResNet-28-2 of 1.45 M parameters: Pham et al. 2021 and its earlier version; of a range, TorchSSL's is last.
PUBLISHED = {
    "labels alone": "top-1 82.1",
    "plain pseudo labels": "top-1 83.8 to 85.3",
    "UDA": "top-1 94.5 to 95.8",
    "Meta Pseudo Labels": "top-1 95.6, fine-tuned 96.1",
}
COLOURS = ("#888888", "#c8691e", "#3f8f3f", "#2f6fb0", "#8a4fb0", INK)
LEAST, MOST = 20, 100  # of the picture, in points


def cut(source: Path) -> None:
    """The parts that the config names, from CIFAR-10's files, where they are not there yet."""
    if DATA.exists():
        return
    files = {name: sorted(str(it) for it in source.glob(f"{name}-*.parquet")) for name in ("train", "test")}
    if not all(files.values()):
        sys.exit(f"{source}: expected train-*.parquet and test-*.parquet with the columns image and label.")
    half = DATA.with_name(f"{DATA.name}.half")
    shutil.rmtree(half, ignore_errors=True)
    split.cut(half, files["train"], files["test"], {"labelled": 4000, "validation": 1000})
    half.rename(DATA)


def carry(config: Config, fork: str | None, mode: Mode) -> None:
    """Make a run in this process, however many images it has."""
    with drive(config.model_dump(exclude_unset=True), (), mode, fork=fork) as opened:
        opened.execute, opened.fan_out, opened.here = in_this_process(), Here, True
        carry_out(opened)


def curves(found: Mapping[str, Any], seed: int) -> dict[str, list[tuple[int, float]]]:
    """Of every student: (step, top-1 on validation images in points) while it trained, before its fine-tuning."""
    folder = Path(found["folder"])
    places = {NOISY_STUDENT: folder / "base"}
    names = [str(row["variant"]) for row in found["rows"]]
    places |= {name: folder / "methods" / Variant(name).folder for name in names}
    told = {}
    for name, place in places.items():
        commit = find_commit(open_run(f"{place}/{seed}"), "rounds/1/train")
        if commit is not None:
            told[name] = [(step, round(100 * top1, 1)) for step, _, top1 in commit.summary.get("curve", [])]
    return told


def picture(told: Mapping[str, list[tuple[int, float]]]) -> Drawing:
    """Top-1 on validation images over the steps; what others published at full length at the right edge."""
    wide, tall, left, top, foot = 460, 300, 46, 34, 46
    drawing = Drawing(left + wide + 210, top + tall + foot)
    last = max(step for curve in told.values() for step, _ in curve)

    def at(step: float, points: float) -> tuple[float, float]:
        return left + wide * step / last, top + tall * (MOST - points) / (MOST - LEAST)

    drawing.text((left, 18), "CIFAR-10, 4,000 labels: top-1 on 1,000 validation images, before any fine-tuning", 12)
    for mark in range(LEAST, MOST + 1, 10):
        drawing.line([at(0, mark), at(last, mark)], 0.5, "#dddddd")
        drawing.text((left - 8, at(0, mark)[1] + 4), str(mark), 11, PALE, to_left=True)
    for tick in range(0, last + 1, max(1, last // 4)):
        drawing.text((at(tick, LEAST)[0] - 10, top + tall + 16), f"{tick:,}", 11, PALE)
    drawing.text((left + wide, top + tall + 34), "steps", 11, PALE, to_left=True)
    for number, ((name, curve), colour) in enumerate(zip(told.items(), COLOURS, strict=False)):
        drawing.line([at(step, points) for step, points in curve], 2, colour)
        row = top + tall - 16 * (len(told) - number)
        drawing.line([(left + wide - 230, row - 4), (left + wide - 206, row - 4)], 2, colour)
        drawing.text((left + wide - 200, row), name, 11)
    drawing.text((left + wide + 8, 18), "published, 300,000 steps", 11, PALE)
    for name, points in (("MPL 95.6", 95.6), ("UDA 94.5", 94.5), ("pseudo labels 83.8", 83.8), ("labels 82.1", 82.1)):
        x, y = at(last, points)
        drawing.line([(x, y), (x + 8, y)], 1.5, PALE)
        drawing.text((x + 12, y + (10 if name.startswith(("UDA", "labels")) else 0)), name, 11, PALE)
    return drawing


def main() -> None:
    """Train, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=os.environ.get("RAY_NS_CIFAR10"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--update", action="store_true", help="write the table and the picture into docs/")
    words = parser.parse_args()
    if words.folder is None:
        sys.exit("Give the folder of CIFAR-10's Parquet files, or RAY_NS_CIFAR10.")
    torch.set_num_threads(1)
    cut(Path(words.folder))
    found = study(CONFIG, "methods", f"{words.seed}..{words.seed}", carry=carry)
    beside = [row | {"published": PUBLISHED.get(row["variant"], "")} for row in found["rows"]]
    table = lines(found | {"rows": beside})
    print("\n".join(table))
    told = curves(found, words.seed)
    if words.update:
        put("cifar10-4k", table)
        PICTURE.write_text(picture(told).svg())
    print(json.dumps({"rows": found["rows"], "curves": told}))


if __name__ == "__main__":
    main()
