"""Dropout and stochastic depth for some images of a batch alone."""

import pytest
import timm
import torch
from torch import nn

from ray_ns.config import Data
from ray_ns.config.training import PseudoNoise
from ray_ns.errors import InputError
from ray_ns.models.spared import check, spared

ROWS = torch.tensor([False, True, True, False, True, False])
MODELS = ["resnet10t", "test_vit", "test_convnext", "mobilenetv3_small_050"]


def made(name: str, dropout: float = 0.0, drop_path: float = 0.0) -> tuple[nn.Module, torch.Tensor]:
    """A network in training whose batch norms look at no other image, and images for it."""
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=5, drop_rate=dropout or None, drop_path_rate=drop_path or None)
    size = min(network.default_cfg["input_size"][-1], 160)
    images = torch.randn(len(ROWS), 3, size, size)
    for module in network.modules():  # heads and ends of blocks begin near 0, which would hide what reaches them
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            module.momentum = 1.0
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.2)
        if isinstance(getattr(module, "gamma", None), nn.Parameter):
            nn.init.ones_(module.gamma)
    network.train()
    forward(network, images, 0)
    return frozen_norms(network), images


def frozen_norms(network: nn.Module) -> nn.Module:
    """The network in training, but for its batch norms."""
    for module in network.train().modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return network


def forward(network: nn.Module, images: torch.Tensor, seed: int) -> torch.Tensor:
    torch.manual_seed(seed)
    with torch.no_grad():
        return network(images)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("rates", [(0.5, 0.0), (0.0, 0.9), (0.4, 0.9)])
def test_spared_images_are_as_without_the_noise_and_the_others_as_with_it(
    name: str, rates: tuple[float, float]
) -> None:
    network, images = made(name, *rates)
    noised = forward(network, images, 1)
    clean = forward(network.eval(), images, 1)
    frozen_norms(network)
    assert ((noised - clean).abs().amax(1) > 1e-3)[ROWS].any(), "the noise shows"
    with spared(network, ROWS, dropout=True, drop_path=True):
        found = forward(network, images, 1)
    torch.testing.assert_close(found[ROWS], clean[ROWS], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[~ROWS], noised[~ROWS], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(forward(network, images, 1), noised)


def test_each_noise_is_spared_by_itself() -> None:
    network, images = made("resnet10t", dropout=0.5)
    noised = forward(network, images, 1)
    with spared(network, ROWS, dropout=False, drop_path=True):
        assert torch.equal(forward(network, images, 1), noised)
    network, images = made("resnet10t", drop_path=0.5)
    noised = forward(network, images, 1)
    with spared(network, ROWS, dropout=True, drop_path=False):
        assert torch.equal(forward(network, images, 1), noised)


def test_dropout_in_place_is_spared_too() -> None:
    network = nn.Sequential(nn.Identity(), nn.Dropout(0.5, inplace=True)).train()
    images = torch.ones(len(ROWS), 40)
    with spared(network, ROWS, dropout=True, drop_path=False):
        found = network(images.clone())
    assert (found[ROWS] == 1).all()
    assert (found[~ROWS] != 1).all()


def test_gradients_of_spared_images_are_whole() -> None:
    network = nn.Dropout(0.5).train()
    images = torch.ones(len(ROWS), 40, requires_grad=True)
    with spared(network, ROWS, dropout=True, drop_path=False):
        network(images).sum().backward()
    assert images.grad is not None
    assert (images.grad[ROWS] == 1).all()
    assert (images.grad[~ROWS] != 1).all()


def test_a_network_that_drops_other_rows_than_images_is_refused() -> None:
    network = nn.Sequential(nn.Flatten(0, 1), nn.Dropout(0.5)).train()
    with (
        spared(network, ROWS, dropout=True, drop_path=False),
        pytest.raises(InputError, match=r"pseudo_noise: the network drops among 24 rows where 6 images"),
    ):
        network(torch.ones(len(ROWS), 4, 3))


def test_it_is_seen_beforehand_on_meta_whether_a_network_can_spare_images() -> None:
    data = Data.model_validate({"labelled": "l", "pool": "p", "classes": 3, "size": 32})
    with torch.device("meta"):
        network = timm.create_model("resnet10t", num_classes=3, drop_rate=0.1, drop_path_rate=0.1)
        mixing = nn.Sequential(nn.Flatten(0, 1), nn.Dropout(0.5))
    noise = PseudoNoise(dropout=False, drop_path=False)
    check(network, data, 4, noise)
    assert not network.training
    with pytest.raises(InputError, match="among 12 rows where 4 images"):
        check(mixing, data, 4, noise)
    check(mixing, data, 4, PseudoNoise())
