"""The network chooses among some classes: the others' logits are cut before the softmax, as ImageNet-A has it."""

import numpy as np
import torch
from torch import nn

from ray_ns.config import Data
from ray_ns.models.predictor import Teacher

DATA = Data.model_validate(
    {"labelled": "l", "pool": "p", "classes": 10, "size": 8, "channels": 1, "mean": [0.5], "std": [0.25]}
)


def test_it_is_the_softmax_of_the_logits_that_are_left() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with torch.no_grad():
        network[1].bias[3] = 200.0  # so sure of a class that is cut, that no other has a probability
    images = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 1)).astype(np.uint8)
    kept = [1, 4, 7]
    found = Teacher(network, DATA, 4, "float32", torch.device("cpu"))(images, np.isin(np.arange(10), kept))
    pixels = torch.from_numpy((images.transpose(0, 3, 1, 2) / 255 - 0.5) / 0.25).float()
    with torch.inference_mode():
        logits = network(pixels)[:, kept]
    assert np.allclose(found[:, kept], torch.softmax(logits, 1).numpy(), atol=1e-6)
    assert (np.array(kept)[logits.argmax(1)] == found.argmax(1)).all()
    assert (np.delete(found, kept, 1) == 0).all()
