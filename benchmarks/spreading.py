"""Label spreading on the demo's digits (Zhou et al. 2004): what the pool gives where no network learns from it.

Of pixels, and of what the classifier of a run's teacher sees. scikit-learn's; it is given the labelled images and the
pool, photograph crops among it, and is asked for other digits.

    python -m benchmarks.spreading DATA RUN      top-1 on validation by every setting of the grid; RUN has a round 0

``PIXELS`` and ``FEATURES`` were the best on seed 10's validation digits (features of a teacher of 200 steps at 32
pixels); seeds 0 to 4 were not looked at.
"""

import argparse
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from ray_ns.config.read import load
from ray_ns.images.decode import Decode
from ray_ns.models.files import CONFIG, WEIGHTS, from_files

PARTS = ("labelled", "pool", "validation", "test")


@dataclass(frozen=True)
class Setting:
    """``neighbours``: of the graph; ``alpha``: how much of its label a point takes from them, 0..1.

    ``unit``: whether each point is divided by its length first.
    """

    neighbours: int
    alpha: float
    unit: bool


PIXELS = Setting(5, 0.8, True)
FEATURES = Setting(5, 0.99, False)


def read(data: Path, part: str) -> pa.Table:
    """All rows of a part of the demo's data, in the order of its shards."""
    return pa.concat_tables([pq.read_table(it) for it in sorted((data / part).iterdir())])


def pixels(table: pa.Table) -> np.ndarray:
    """Float32 (n, 784), 0..1."""
    images = [np.asarray(Image.open(io.BytesIO(it))) for it in table["image"].to_pylist()]
    return np.stack(images).reshape(len(images), -1).astype(np.float32) / 255


class Features:
    """What the classifier of a run's teacher sees of an image, un-noised: float32 (n, channels)."""

    def __init__(self, run: Path, config: Path) -> None:
        self._data = load(config).data
        commit = json.loads((run / "rounds/0/train/commit.json").read_text())
        keys = {name: commit["parts"][0]["objects"][name]["key"] for name in (WEIGHTS, CONFIG)}
        self._network = from_files({name: (run / key).read_bytes() for name, key in keys.items()})

    @torch.inference_mode()
    def __call__(self, table: pa.Table) -> np.ndarray:
        decode = Decode(self._data.size, self._data.channels)
        mean, std = self._data.mean[0], self._data.std[0]
        found = []
        for batch in table.to_batches(250):
            images = np.stack([decode(it) for it in batch["image"].to_pylist()])
            fed = (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - mean) / std
            network = self._network
            found.append(network.forward_head(network.forward_features(fed), pre_logits=True))  # type: ignore[operator]
        return torch.cat(found).numpy()


def top1(points: dict[str, np.ndarray], truth: dict[str, np.ndarray], setting: Setting, asked: str) -> float:
    """Right answers among the points of ``asked``, in points of a hundred."""
    from sklearn.semi_supervised import LabelSpreading

    if setting.unit:
        points = {name: it / np.linalg.norm(it, axis=1, keepdims=True).clip(1e-12) for name, it in points.items()}
    known = np.concatenate([truth["labelled"], np.full(len(points["pool"]), -1)])
    spreading = LabelSpreading(kernel="knn", n_neighbors=setting.neighbours, alpha=setting.alpha, max_iter=1000)
    spreading.fit(np.concatenate([points["labelled"], points["pool"]]), known)
    return 100 * float((spreading.predict(points[asked]) == truth[asked]).mean())


def of_demo(data: Path, run: Path, config: Path) -> dict[str, tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """Points and truth of every part, as ``top1`` takes them: by pixels, and by the teacher's features."""
    tables = {part: read(data, part) for part in PARTS}
    truth = {part: it["label"].to_numpy() for part, it in tables.items() if part != "pool"}
    seen: dict[str, Callable[[pa.Table], np.ndarray]] = {"pixels": pixels, "features": Features(run, config)}
    return {name: ({part: of(it) for part, it in tables.items()}, truth) for name, of in seen.items()}


def main() -> None:
    """Print the grid, the best last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--config", type=Path, default=Path("configs/demo.yaml"))
    asked = parser.parse_args()
    for name, (points, truth) in of_demo(asked.data, asked.run, asked.config).items():
        grid = [Setting(*it) for it in product((5, 10, 20), (0.2, 0.8, 0.99), (False, True))]
        for value, setting in sorted(
            ((top1(points, truth, it, "validation"), it) for it in grid), key=lambda it: it[0]
        ):
            print(f"{name}: {value:.1f} by {setting}", flush=True)


if __name__ == "__main__":
    main()
