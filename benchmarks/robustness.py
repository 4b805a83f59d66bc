"""How robust teacher, control and student are: under corruptions, sequences, FGSM and PGD, and how well calibrated.

    python -m benchmarks.robustness                   (or `make robustness`: the demo's digits)
    python -m benchmarks.robustness --cifar10 FOLDER  (and CIFAR-10, of Parquet files; also from RAY_NS_CIFAR10)

It makes the data, trains by configs/demo.yaml and benchmarks/robustness_cifar10.yaml, and judges every network by
``ray-ns evaluate RUN --on robustness``, whose tables it leaves on the terminal. What is done already is only read.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.split import drawn, write

ROOT = Path(__file__).resolve().parent.parent
CIFAR10 = ROOT / "data" / "robustness-cifar10"
COUNTS = {"labelled": 2000, "validation": 500}
TEST = {"test": 150}
FIRST = 10_000  # of the training images: the labelled ones, the validation images and the pool are drawn from these


def ray_ns(*words: str) -> None:
    """One command line of ray-ns; its output goes to this terminal."""
    began = time.monotonic()
    subprocess.run([str(Path(sys.executable).with_name("ray-ns")), *words], check=True, cwd=ROOT)
    print(f"ray-ns {words[0]}: {time.monotonic() - began:.0f} s", flush=True)


def judge(config: str, run: str) -> None:
    """Train, then judge the teacher, the control and the student."""
    ray_ns("run", config)
    ray_ns("evaluate", run, "--on", "robustness")


def cut(source: Path) -> None:
    """Some of CIFAR-10 as a run wants it, of ``train-*.parquet`` and ``test-*.parquet``."""
    if CIFAR10.exists():
        return
    train, test = (
        pa.concat_tables([pq.read_table(it, columns=["image", "label"]) for it in sorted(source.glob(f"{name}-*"))])
        for name in ("train", "test")
    )
    train = train.slice(0, FIRST)
    rows = drawn(train["label"].to_numpy(), COUNTS, 0)
    for name in COUNTS:
        write(train.take(rows[name]), CIFAR10 / name)
    write(train.take(rows["pool"]).select(["image"]), CIFAR10 / "pool")
    write(test.take(drawn(test["label"].to_numpy(), TEST, 0)["test"]), CIFAR10 / "test")


def main() -> None:
    """The digits; CIFAR-10 where it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar10", type=Path, default=os.environ.get("RAY_NS_CIFAR10"), help="folder of its files")
    parser.add_argument("--only", choices=["digits", "cifar10"], help="one of the two")
    words = parser.parse_args()
    if words.only != "cifar10":
        if not (ROOT / "data" / "digits").exists():
            ray_ns("demo-data", "data/digits")
        judge("configs/demo.yaml", "runs/demo")
    if words.only != "digits":
        if words.cifar10 is None:
            sys.exit("CIFAR-10 is not judged: give --cifar10 FOLDER, or RAY_NS_CIFAR10" if words.only else None)
        cut(Path(words.cifar10))
        judge("benchmarks/robustness_cifar10.yaml", "runs/robustness-cifar10")


if __name__ == "__main__":
    main()
