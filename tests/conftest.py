"""Small things that many tests need: one thread, fixed hypothesis seeds, images as PNG, corpora, a tiny config."""

import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import settings
from PIL import Image
from support.tiny_run import Finished

from ray_ns.config import Config, Data
from ray_ns.corpora.corpus import Corpus

settings.register_profile("fixed", derandomize=True, deadline=None, max_examples=40, database=None)
settings.load_profile("fixed")

CLASSES, SIDE = 3, 16


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    if "torch" in sys.modules:  # a test run without torch does not pay for its import
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def encode() -> Callable[..., bytes]:
    """Pixels (or a PIL image) to the bytes of an image file, PNG unless told otherwise."""

    def encoded(image: np.ndarray | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
        sink = io.BytesIO()
        (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(sink, kind, **options)
        return sink.getvalue()

    return encoded


@pytest.fixture
def pictures(encode: Callable[..., bytes]) -> Callable[..., list[bytes]]:
    """``count`` different noisy grey PNGs of SIDE x SIDE; the picture of a class is brighter than the one before."""

    def made(count: int, seed: int = 0) -> list[bytes]:
        rng = np.random.default_rng(seed)
        levels = 40 + 80 * (np.arange(count) % CLASSES)[:, None, None]
        pixels = (levels + rng.integers(-30, 31, (count, SIDE, SIDE))).clip(0, 255).astype(np.uint8)
        return [encode(image) for image in pixels]

    return made


@pytest.fixture
def write_corpus(tmp_path: Path) -> Callable[..., Corpus]:
    """Write one Parquet shard per list of encoded images and scan the folder."""

    def written(
        name: str,
        shards: Sequence[Sequence[bytes | None]],
        labels: Sequence[Sequence[int]] | None = None,
        group: int = 4,
    ) -> Corpus:
        folder = tmp_path / name
        folder.mkdir()
        for number, images in enumerate(shards):
            columns = {"image": pa.array(images, pa.binary())}
            if labels is not None:
                columns["label"] = pa.array(labels[number], pa.int64())
            pq.write_table(pa.table(columns), folder / f"{number:05d}.parquet", row_group_size=group)
        return Corpus.scan(str(folder), "image", None if labels is None else "label")

    return written


@pytest.fixture(scope="session")
def config() -> Config:
    """A run of 8 steps on grey 16 x 16 images of three classes, with every kind of noise on."""
    model = {
        "name": "resnet10t",
        "args": {"channels": [8, 8, 16, 16], "stem_width": 8, "output_stride": 16},
        "dropout": 0.2,
        "drop_path": 0.2,
    }
    recipe = {
        "model": model,
        "steps": 8,
        "batch": 4,
        "optimizer": {"lr": 0.05, "warmup_steps": 2},
        "noise": {"augment": "affine", "magnitude": 0.7},
        "ema_decay": 0.9,
        "precision": "float32",
    }
    return Config.model_validate(
        {
            "run": {"dir": "unused"},
            "data": {
                **dict.fromkeys(("labelled", "validation", "test", "pool"), "unused"),
                "classes": CLASSES,
                "size": SIDE,
                "channels": 1,
                "mean": [0.5],
                "std": [0.25],
            },
            "teacher": recipe,
            "student": {**recipe, "ratio": 2},
            "label": {"precision": "float32"},
        }
    )


@pytest.fixture
def data(config: Config) -> Data:
    return config.data


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return Finished(tmp_path_factory.mktemp("finished"))
