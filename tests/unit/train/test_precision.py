"""Each kind of convolution in the precision in which the device is fast."""

import copy
from pathlib import Path

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional

from ray_ns.models.ema import averaged
from ray_ns.train.precision import autocast

CPU = torch.device("cpu")
# Channels in, channels out, groups; whether float32 is expected.
KINDS = {
    "plain": ((8, 4, 1), False),
    "of few channels, as a stem": ((3, 4, 1), False),
    "of one channel, as a stem on grey images": ((1, 4, 1), False),
    "groups of 8": ((16, 8, 2), False),
    "groups of 4": ((16, 8, 4), True),
    "depthwise": ((8, 8, 8), True),
    "depthwise, two filters per channel": ((8, 16, 8), True),
}


def result(network: nn.Module, precision: str, channels: int = 3) -> torch.Tensor:
    """What the network makes of two images that are always the same, gone back through."""
    torch.manual_seed(1)
    with autocast(precision, CPU):
        out: torch.Tensor = network(torch.randn(2, channels, 32, 32))
    out.float().square().sum().backward()
    return out.detach()


def gradient(layer: nn.Module) -> torch.Tensor:
    (weight,) = layer.parameters()
    assert weight.grad is not None
    found, weight.grad = weight.grad, None
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_convolutions_in_thin_groups_alone_compute_in_float32(kind: str) -> None:
    (inside, out, groups), thin = KINDS[kind]
    torch.manual_seed(0)
    layer = nn.Conv2d(inside, out, 3, groups=groups, bias=False)
    whole = result(layer, "float32", inside)
    torch.manual_seed(1)
    pixels = torch.randn(2, inside, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        half = layer(pixels)
    found = result(layer, "bfloat16", inside)
    assert (whole.dtype, found.dtype) == (torch.float32, half.dtype)
    assert torch.equal(found, whole.bfloat16()) == thin
    assert torch.equal(found, half) != thin


def test_the_gradient_of_a_depthwise_convolution_is_that_of_float32() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 8, 3, groups=8, bias=False)
    pixels = torch.randn(2, 8, 16, 16).bfloat16()
    back = torch.randn(2, 8, 14, 14).bfloat16()
    with autocast("bfloat16", CPU):
        out = layer(pixels)
    out.backward(back)
    found = gradient(layer)
    layer(pixels.float()).backward(back.float())
    assert torch.equal(found, gradient(layer))


def test_a_convolution_that_is_called_by_keywords_is_seen_too() -> None:
    # No number of bfloat16, where it is 1, and nine of them 9.
    weight = torch.full((4, 1, 3, 3), 1 + 2**-8)
    with autocast("bfloat16", CPU):
        found = functional.conv2d(input=torch.ones(1, 4, 3, 3), weight=weight, groups=4)
    assert found.flatten().tolist() == [float(torch.tensor(9 * (1 + 2**-8)).bfloat16())] * 4  # 9.0625


def test_a_network_without_thin_groups_gives_the_bits_of_plain_autocast() -> None:
    torch.manual_seed(0)
    network = timm.create_model("resnet10t", num_classes=3).eval()
    ours = result(network, "bfloat16")
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16):
        plain = network(torch.randn(2, 3, 32, 32))
    assert torch.equal(ours, plain.detach())


def test_a_network_and_its_average_are_as_they_were() -> None:
    torch.manual_seed(0)
    network = timm.create_model("test_efficientnet", num_classes=3).eval()
    names = list(network.state_dict())
    half = result(network, "bfloat16")
    average = averaged(network, 0.9, "tensorflow")
    assert average is not None
    assert list(network.state_dict()) == list(average.module.state_dict()) == names
    assert torch.equal(result(average.module, "bfloat16"), half)
    whole = result(network, "float32")
    assert not torch.equal(whole, half.float())
    torch.testing.assert_close(whole, half.float(), rtol=0.1, atol=0.05)


def test_a_network_that_is_wrapped_for_several_workers_learns_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = timm.create_model("test_efficientnet", num_classes=3).eval()
    alone = copy.deepcopy(network)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        found = result(nn.parallel.DistributedDataParallel(network), "bfloat16")
    finally:
        torch.distributed.destroy_process_group()
    assert torch.equal(found, result(alone, "bfloat16"))
    for one, two in zip(network.parameters(), alone.parameters(), strict=True):
        assert one.grad is not None
        assert two.grad is not None
        assert torch.equal(one.grad, two.grad)
