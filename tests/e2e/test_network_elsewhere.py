"""Timm and transformers, each in a process of its own, give the labels that the run gave, by the two files alone."""

import io
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import nn

from ray_ns.config import Data, Model
from ray_ns.images.decode import Decode
from ray_ns.models import zoo
from ray_ns.models.files import CONFIG, from_files, to_files
from ray_ns.models.predictor import Teacher

CLASSES = ("water & roof", "façade", "sky", "petal", "leaf", "stem")
SHAPES = [(480, 320), (320, 480), (512, 288), (300, 451), (97, 65)]
COUNT = 200


@cache
def photographs() -> tuple[list[bytes], np.ndarray]:
    """JPEGs of 3:2, 2:3, 16:9 and odd sizes with a class each: views into one of six parts of two photographs."""
    chance = np.random.default_rng(0)
    sources = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    files, labels = [], []
    for number in range(COUNT):
        label = number % len(CLASSES)
        source, third = sources[label // 3], label % 3
        shape = SHAPES[number % len(SHAPES)]
        width = int(chance.integers(140, 200))
        height = min(300, round(width * shape[1] / shape[0]))
        left = third * 213 + int(chance.integers(0, 640 // 3 - width + 1))
        top = int(chance.integers(0, 427 - height + 1))
        view = source.crop((left, top, left + width, top + height)).resize(shape, Image.Resampling.BICUBIC)
        file = io.BytesIO()
        view.save(file, "JPEG", quality=int(chance.integers(70, 96)))
        files.append(file.getvalue())
        labels.append(label)
    return files, np.array(labels)


def data_for(fit: str, channels: int, size: int) -> Data:
    per_channel: dict[str, Any] = {"mean": [0.45] * channels, "std": [0.25] * channels}
    given = {"labelled": "l", "pool": "p", "classes": len(CLASSES), "size": size, "channels": channels, "fit": fit}
    return Data.model_validate({**given, **per_channel})


def fitted(data: Data, folder: Path) -> np.ndarray:
    """Write a network whose classifier is fitted to the photographs; what a run says of them, (COUNT, classes)."""
    files, labels = photographs()
    decode = Decode(data.size, data.channels, data.fit)
    pixels = np.stack([decode(file) for file in files])
    torch.manual_seed(0)
    network: Any = zoo.build(Model(name="resnet10t", args={"channels": [32, 64, 128, 256]}), data).eval()
    with torch.no_grad():
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
        images = (images - torch.tensor(data.mean)[:, None, None]) / torch.tensor(data.std)[:, None, None]
        network.train()(images)  # running figures of its own
        network.eval()
        moved = [images.roll(by, (2, 3)) for by in ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))]  # as augmentation does
        features = torch.cat([network.forward_head(network.forward_features(it), pre_logits=True) for it in moved])
        centre, spread = features.mean(0), features.std(0) + 1e-6
        inside = (features - centre) / spread
        wanted = nn.functional.one_hot(torch.from_numpy(labels).repeat(len(moved)), len(CLASSES)) * 8.0
        weight = torch.linalg.solve(inside.T @ inside + 5 * torch.eye(inside.shape[1]), inside.T @ (wanted - 8 / 6)).T
        network.fc.weight.copy_(weight / spread)
        network.fc.bias.copy_(-(weight / spread) @ centre)
    folder.mkdir()
    for name, content in to_files(network, data, CLASSES).items():
        (folder / name).write_bytes(content)
    for number, file in enumerate(files):
        (folder / f"{number:03}.jpg").write_bytes(file)
    back = from_files({name: (folder / name).read_bytes() for name in (CONFIG, "model.safetensors")})
    return Teacher(back, data, 16, "float32", torch.device("cpu"))(pixels)


def check_alike(said: np.ndarray, found: list[int]) -> None:
    """The same label for every photograph whose two first classes are not about equal, and for 198 of all 200.

    Two decoders and two resamplers differ by a level here and there: which of two equal classes comes first is theirs.
    """
    labels = said.argmax(1)
    assert len(set(labels)) == len(CLASSES)
    second, first = np.sort(said, 1)[:, -2:].T
    clear = first - second > 0.1
    assert clear.sum() > 0.95 * COUNT
    assert [number for number in np.flatnonzero(clear) if found[number] != labels[number]] == []
    assert (np.array(found) == labels).sum() >= 198


TIMM = """
import json, sys, pathlib
import timm, torch
from PIL import Image
folder = pathlib.Path(sys.argv[1])
model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
told = timm.data.resolve_data_config({}, model=model)
transform = timm.data.create_transform(**told, is_training=False)
mode = "RGB" if told["input_size"][0] == 3 else "L"
with torch.inference_mode():
    found = [
        int(model(transform(Image.open(path).convert(mode))[None]).argmax()) for path in sorted(folder.glob("*.jpg"))
    ]
assert not any(name.startswith("ray_ns") for name in sys.modules)
print(json.dumps({"labels": found, "names": list(model.pretrained_cfg["label_names"])}))
"""

TRANSFORMERS = """
import json, sys, pathlib
import transformers
folder = pathlib.Path(sys.argv[1])
classify = transformers.pipeline("image-classification", model=str(folder), device="cpu")
found = [classify(str(path), top_k=1)[0]["label"] for path in sorted(folder.glob("*.jpg"))]
assert not any(name.startswith("ray_ns") for name in sys.modules)
print(json.dumps({"labels": found}))
"""


def elsewhere(program: str, folder: Path) -> dict[str, Any]:
    """What a program prints that knows the folder and nothing of this package."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    alone = {**kept, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)], env=alone, cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


@pytest.mark.parametrize(("fit", "channels", "size"), [("squash", 3, 48), ("crop", 3, 48), ("crop", 1, 56)])
def test_timms_own_transform_and_model_give_the_labels_of_the_run(
    tmp_path: Path, fit: str, channels: int, size: int
) -> None:
    said = fitted(data_for(fit, channels, size), tmp_path / "network")
    found = elsewhere(TIMM, tmp_path / "network")
    assert tuple(found["names"]) == CLASSES
    check_alike(said, found["labels"])


def test_the_pipeline_of_transformers_prints_the_names_of_the_classes(tmp_path: Path) -> None:
    said = fitted(data_for("squash", 3, 48), tmp_path / "network")
    found = elsewhere(TRANSFORMERS, tmp_path / "network")
    check_alike(said, [CLASSES.index(name) for name in found["labels"]])
