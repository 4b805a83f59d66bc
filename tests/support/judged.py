"""A network and labelled images to judge it on, and what it says of them, computed here one slice after the other."""

from pathlib import Path

import numpy as np
import torch
from support.networks import SMALL, trained

from ray_ns.config import Data, Model
from ray_ns.images.decode import Decode, Reason
from ray_ns.models.files import from_files, to_files
from ray_ns.models.predictor import Teacher

NAMES = ("cat", "dog", "eel")
DATA = Data.model_validate(
    {"labelled": "l", "pool": "p", "classes": 3, "size": 16, "channels": 1, "mean": [0.5], "std": [0.25]}
)


def network_files(names: tuple[str, ...] | None = NAMES, bias: float = 0.0, data: Data = DATA) -> dict[str, bytes]:
    """The two files of a network of three classes for grey images; ``data``: how it is fed."""
    model = trained(Model(name="resnet10t", args=SMALL), DATA)
    with torch.no_grad():
        model.fc.bias += bias * torch.arange(3)
    return dict(to_files(model, data, names))


def write_network(folder: Path, names: tuple[str, ...] | None = NAMES, bias: float = 0.0) -> Path:
    """A folder like RUN/best."""
    folder.mkdir()
    for name, content in network_files(names, bias).items():
        (folder / name).write_bytes(content)
    return folder


def write_classes(folder: Path, images: list[bytes], labels: list[int]) -> Path:
    """A folder per class."""
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        (folder / NAMES[label]).mkdir(parents=True, exist_ok=True)
        (folder / NAMES[label] / f"{number:03d}.png").write_bytes(image)
    return folder


def by_hand(
    files: dict[str, bytes], images: list[bytes], rows: int, data: Data = DATA
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, float32 (n, 3), and which images can be read, bool (n,); ``rows``: of a slice."""
    teacher = Teacher(from_files(files), data, rows, "float32", torch.device("cpu"))
    decoded = [Decode.of(data)(image) for image in images]
    readable = np.array([not isinstance(it, Reason) for it in decoded])
    blank = np.zeros((data.size, data.size, 1), np.uint8)
    pixels = np.stack([it if isinstance(it, np.ndarray) else blank for it in decoded])
    found = [teacher(pixels[at : at + rows]) for at in range(0, len(images), rows)]
    return np.concatenate(found), readable
