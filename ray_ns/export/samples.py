"""Images to compare two forms of a network on: of the run's test set where it can be reached, else random ones."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ray_ns.config import Data
from ray_ns.corpora.corpus import Corpus, Shard
from ray_ns.errors import RayNsError
from ray_ns.export.network import Given
from ray_ns.images.decode import Decode
from ray_ns.store import hints, layout
from ray_ns.store.objects import ObjectStore

COUNT = 32


@dataclass(frozen=True)
class Sample:
    """``images``: float32 (n, channels, size, size), normalised. ``told``: what they are, in words."""

    images: np.ndarray
    told: str


def sample(given: Given) -> Sample:
    """At most ``COUNT`` images, fed as the network is."""
    why = "no run is given"
    if given.run is not None:
        try:
            found = _of_test(given.run, given.data)
            if found:
                return Sample(_normalised(np.stack(found), given.data), f"{len(found)} images of the run's test set")
            why = "the run's test set has none that can be read"
        except RayNsError as error:
            why = f"the run's test set cannot be reached: {error}"
    shape = (COUNT, given.data.size, given.data.size, given.data.channels)
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    return Sample(_normalised(pixels, given.data), f"{COUNT} random images ({why})")


def _of_test(run: ObjectStore, data: Data) -> list[np.ndarray]:
    """Pixels, uint8 (size, size, channels), of the first readable test images, from where the driver last saw them."""
    root = hints.read(run, layout.PLACES).get("test")
    if not isinstance(root, str):
        return []
    shards = tuple(Shard(**it) for it in layout.generations(run)[-1]["test"])
    column = data.image_columns.get("test", data.image_column)
    corpus = replace(Corpus.scan(root, column, None, shards), shards=shards)
    decode = Decode.of(data)
    found: list[np.ndarray] = []
    for encoded in _encoded(corpus):
        pixels = decode(encoded)
        if isinstance(pixels, np.ndarray):
            found.append(pixels)
        if len(found) == COUNT:
            break
    return found


def _encoded(corpus: Corpus) -> Iterator[bytes | None]:
    for shard in corpus.shards:
        reader = corpus.open(shard)
        for group, rows in enumerate(reader.group_rows):
            if rows:
                yield from reader.images(group, np.arange(min(rows, COUNT))).to_pylist()


def _normalised(pixels: np.ndarray, data: Data) -> np.ndarray:
    mean, std = (np.array(it, np.float32) for it in (data.mean, data.std))
    scaled = (pixels.astype(np.float32) / 255 - mean) / std
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))
