"""What a network says of a slice without images, in every view that a suite asks for: no row, of the usual columns."""

import numpy as np
import pytest
import torch
from torch import nn

from ray_ns.config import Data
from ray_ns.engine.workers.judging import Judge
from ray_ns.engine.workers.slices import LOGITS, Slice
from ray_ns.evaluate import corruptions, perturbations
from ray_ns.evaluate.figures import of_table
from ray_ns.evaluate.suites import corruption
from ray_ns.models.predictor import Teacher

ONCE = ["clean", "among:c0", "fgsm:0.03", "pgd:0.03:2:0.02", LOGITS]


def views(size: int) -> list[str]:
    of = corruptions.CIFAR if size < corruptions.LARGE else "imagenet-1.1.5"
    made = [corruption(it, name, 3) for it in (of, corruptions.PUBLISHED) for name in corruptions.names(size, 3)]
    return [*ONCE, *made, *(f"perturb:{perturbations.variant(size)}:{name}" for name in perturbations.TABLE)]


@pytest.mark.parametrize(("size", "view"), [(size, view) for size in (8, 64) for view in views(size)])
def test_of_no_image_nothing_is_said(size: int, view: str) -> None:
    fed = {"labelled": "l", "pool": "p", "classes": 6, "size": size, "channels": 3}
    data = Data.model_validate(fed)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * size**2, 6))
    judge = Judge(Teacher(network, data, 2, "float32", torch.device("cpu")), {}, data)
    empty = judge(Slice("test", 0, -1, 0, 0, 0, view=view), np.zeros((0, size, size, 3), np.uint8), [])
    assert len(empty) == 0
    if view == LOGITS:
        return
    judged = of_table(empty)
    assert (len(judged.truth), judged.top.shape) == (0, (0, 5))
    assert (judged.frames is not None) == view.startswith("perturb")
