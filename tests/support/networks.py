"""Small networks of timm's, as a training leaves them."""

import pytest
import torch
from torch import nn

from ray_ns.config import Data, Model
from ray_ns.models import zoo

SMALL = {"channels": [8, 8, 16, 16], "stem_width": 8, "output_stride": 16}
VIT = {"img_size": 16, "patch_size": 4}
MODELS = pytest.mark.parametrize(
    "model",
    [
        Model(name="resnet10t", args=SMALL, dropout=0.1, drop_path=0.1),
        Model(name="test_efficientnet"),
        Model(name="test_vit", args=VIT, drop_path=0.1),
    ],
    ids=lambda model: model.name,
)


def trained(model: Model, data: Data) -> nn.Module:
    """A network whose weights and running figures are not those of a fresh one."""
    torch.manual_seed(0)
    network = zoo.build(model, data)
    network.train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.randn(4, data.channels, data.size, data.size) * 3 + 1)
        for weight in network.parameters():
            weight.add_(0.01 * torch.randn_like(weight))
    return network.eval()


def outputs(network: nn.Module, data: Data) -> torch.Tensor:
    images = torch.randn(5, data.channels, data.size, data.size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return network(images)
