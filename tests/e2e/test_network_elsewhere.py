"""Timm, transformers and onnxruntime, each in a process of its own, give the labels that the run gave."""

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
from support.ended_run import ended_run
from torch import nn

from ray_ns.config import Data, Model
from ray_ns.export.graphs import FILES, graphs
from ray_ns.export.network import given, write
from ray_ns.images.decode import Decode
from ray_ns.models import zoo
from ray_ns.models.files import CONFIG, from_files, to_files
from ray_ns.models.predictor import Teacher

CLASSES = ("water & roof", "façade", "sky", "petal", "leaf", "stem")
SHAPES = ((480, 320), (320, 480), (512, 288), (300, 451), (97, 65))
THREE_TO_TWO = ((480, 320), (600, 400), (1200, 800), (96, 64))
COUNT = 200


@cache
def photographs(shapes: tuple[tuple[int, int], ...] = SHAPES) -> tuple[list[bytes], np.ndarray]:
    """JPEGs of these shapes with a class each: views into one of six parts of two photographs."""
    chance = np.random.default_rng(0)
    sources = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    files, labels = [], []
    for number in range(COUNT):
        label = number % len(CLASSES)
        source, third = sources[label // 3], label % 3
        shape = shapes[number % len(shapes)]
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


def fitted(data: Data, folder: Path, shapes: tuple[tuple[int, int], ...] = SHAPES) -> np.ndarray:
    """Write a network whose classifier is fitted to the photographs; what a run says of them, (COUNT, classes)."""
    files, labels = photographs(shapes)
    decode = Decode.of(data)
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


BEST = """
import json, sys, pathlib
import numpy as np, onnxruntime, timm, torch
from PIL import Image
folder, photographs = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
images = torch.stack([transform(Image.open(path)) for path in sorted(photographs.glob("*.jpg"))])
with torch.inference_mode():
    here = model(images).softmax(1)
graph = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
(logits,) = graph.run(None, {"images": images.numpy()})
gap = (torch.from_numpy(logits).softmax(1) - here).abs().max()
ahead = torch.export.load(folder / "model.pt2").module()
with torch.inference_mode():
    exported = (ahead(images).softmax(1) - here).abs().max()
assert not any(name.startswith("ray_ns") for name in sys.modules)
print(json.dumps({"probabilities": here.tolist(), "onnx": float(gap), "torch": float(exported)}))
"""


def elsewhere(program: str, folder: Path, *words: str) -> dict[str, Any]:
    """What a program prints that knows the folder and nothing of this package."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    alone = {**kept, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder), *words],
        env=alone,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


@pytest.mark.parametrize(
    ("fit", "channels", "size", "rule"),
    [
        ("squash", 3, 48, {}),
        ("crop", 3, 48, {}),
        ("crop", 1, 56, {}),
        ("crop", 3, 48, {"crop_share": "paper", "interpolation": "bicubic"}),
    ],
)
def test_timms_own_transform_and_model_give_the_labels_of_the_run(
    tmp_path: Path, fit: str, channels: int, size: int, rule: dict[str, Any]
) -> None:
    said = fitted(data_for(fit, channels, size).read_as(**rule), tmp_path / "network")
    found = elsewhere(TIMM, tmp_path / "network")
    assert tuple(found["names"]) == CLASSES
    check_alike(said, found["labels"])


def test_the_pipeline_of_transformers_prints_the_names_of_the_classes(tmp_path: Path) -> None:
    said = fitted(data_for("squash", 3, 48), tmp_path / "network")
    found = elsewhere(TRANSFORMERS, tmp_path / "network")
    check_alike(said, [CLASSES.index(name) for name in found["labels"]])


def test_the_best_folder_of_a_run_gives_its_labels_on_200_photographs_of_3_to_2(tmp_path: Path) -> None:
    """By timm's own transform and model, the pipeline of transformers, onnxruntime and torch.export."""
    data = data_for("crop", 3, 64)
    said = fitted(data, tmp_path / "network", THREE_TO_TWO)
    files = {name: (tmp_path / "network" / name).read_bytes() for name in (CONFIG, "model.safetensors")}
    run = ended_run(tmp_path / "run", data, files, CLASSES)
    best = run.root / "best"
    for graph in graphs(given(str(run.root)), ["onnx", "torch"]):
        write(best, FILES[graph.kind], graph.file)
    found = elsewhere(BEST, best, str(tmp_path / "network"))
    there = np.array(found["probabilities"])
    assert there.shape == (COUNT, len(CLASSES))
    assert (there.argmax(1) == said.argmax(1)).all()
    assert np.abs(there - said).max() < 0.1, "two decoders and two resamplers"
    assert found["onnx"] <= 1e-4
    assert found["torch"] <= 1e-4
    for path in (tmp_path / "network").glob("*.jpg"):
        path.rename(best / path.name)
    named = elsewhere(TRANSFORMERS, best)["labels"]
    assert named == [CLASSES[number] for number in said.argmax(1)]
    assert (best / "labels.txt").read_text().split("\n") == [*CLASSES, ""]
