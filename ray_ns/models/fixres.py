"""FixRes: a trained network corrected for images larger than those it learned from.

Touvron et al. 2019, "Fixing the train-test resolution discrepancy". Random-resized crops magnify objects, so a network
does better on larger images than it was trained on; but then its feature maps are larger, and the figures behind its
pooling are no longer those it knows. The variants mend that at the test size:

- ``statistics``: the mean and variance of every batch norm, estimated anew. No weight is changed. Every one, since the
  size changes what each of them sees, and the later ones see what the earlier ones give.
- ``affine``: the paper's parametric correction. It fits a Frechet distribution to what the classifier sees at the train
  and at the test size and maps one onto the other. Its shape is fixed (xi = 0.3), so the two differ by place and scale
  alone, and the map is y = mu_train + (sigma_train / sigma_test) (x - mu_test): folded into the classifier. Here each
  channel has a map of its own; one for all of them changed nothing on digits (docs/RESULTS.md).
- ``head``: the classifier is trained on; everything else stays as in an evaluation.
- ``head_and_norm``: so, and the last batch norm's mean and variance follow the images. Its own weights stay, as in the
  released code (facebookresearch/FixRes, imnet_finetune/train.py), where the paper speaks of training them.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ray_ns.errors import InputError

Variant = Literal["statistics", "affine", "head", "head_and_norm"]
LEAST = 1e-6  # a standard deviation below this is none


def classifier(network: nn.Module) -> nn.Module:
    """The layer whose outputs are the logits, as timm names it. ``InputError`` where it is not one with weights."""
    timms: Any = network
    found = timms.get_classifier() if hasattr(network, "get_classifier") else None
    if not isinstance(found, nn.Module) or not list(found.parameters()):
        raise InputError(
            f"fixres: {type(network).__name__} has no single classifier that could be trained. Leave fixres out, or "
            f"take another model.name."
        )
    return found


def norms(network: nn.Module) -> list[nn.Module]:
    """The batch norms that keep a mean and variance, in the order of the network."""
    return [it for it in network.modules() if isinstance(it, _BatchNorm) and it.running_mean is not None]


def adapting(network: nn.Module, variant: Variant) -> list[nn.Module]:
    """The batch norms whose mean and variance follow the images. ``InputError`` where the variant needs one."""
    if variant in {"affine", "head"}:
        return []
    found = norms(network)
    if not found:
        raise InputError(
            f"fixres.variant = {variant}: {type(network).__name__} has no batch norm. Take fixres.variant: head or "
            f"affine."
        )
    return found if variant == "statistics" else found[-1:]


def prepare(network: nn.Module, variant: Variant) -> None:
    """Let the classifier alone be trained; ``statistics`` begins to estimate each mean and variance from nothing.

    There the mean of all batches is kept, and torch counts them in a buffer: whoever goes on from a checkpoint goes on.
    """
    network.requires_grad_(False)
    # Of ``statistics`` too, which never updates it: data parallel workers refuse a network without a trained weight.
    classifier(network).requires_grad_(True)
    for norm in adapting(network, variant):
        if variant == "statistics" and isinstance(norm, _BatchNorm):
            norm.reset_running_stats()
            norm.momentum = None


def begin(network: nn.Module, variant: Variant) -> None:
    """Make it ready for a step: as in an evaluation (nothing drops out), but for the norms that adapt."""
    network.eval()
    for norm in adapting(network, variant):
        norm.train()


@dataclass(frozen=True)
class Moments:
    """Of each channel that the classifier sees: over how many images, the sum and the sum of squares, float64 (C,)."""

    images: int
    total_C: Tensor
    squares_C: Tensor

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(self.images + other.images, self.total_C + other.total_C, self.squares_C + other.squares_C)

    @property
    def mean_C(self) -> Tensor:
        """Their means."""
        return self.total_C / self.images

    @property
    def deviation_C(self) -> Tensor:
        """Their standard deviations."""
        return (self.squares_C / self.images - self.mean_C.square()).clamp_min(0).sqrt()


@torch.inference_mode()
def moments(network: nn.Module, pixels: Tensor) -> Moments:
    """Of what the classifier of a network in eval mode sees of normalised ``pixels`` (n, channels, H, W)."""
    seen: list[Tensor] = []
    hook = linear(network).register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    try:
        network(pixels)
    finally:
        hook.remove()
    features_NC = seen[0].double().cpu()
    return Moments(len(features_NC), features_NC.sum(0), features_NC.square().sum(0))


def linear(network: nn.Module) -> nn.Linear:
    """The classifier, into which a map of what it sees can be folded. ``InputError`` where it is another kind."""
    layer = classifier(network)
    if not isinstance(layer, nn.Linear) or layer.bias is None:
        raise InputError(
            f"fixres.variant = affine: the classifier is {type(layer).__name__}, expected a linear layer with a bias. "
            f"Take fixres.variant: head."
        )
    return layer


def fold(network: nn.Module, train: Moments, test: Moments) -> None:
    """Put the map from the ``test`` size's moments onto the ``train`` size's into the classifier, in place.

    W (a x + b) + c = (W a) x + (c + W b). A channel that is the same on all images is moved, not stretched.
    """
    layer = linear(network)
    still_C = test.deviation_C < LEAST
    scale_C = torch.where(still_C, 1.0, train.deviation_C / test.deviation_C.clamp_min(LEAST))
    shift_C = train.mean_C - scale_C * test.mean_C
    with torch.no_grad():
        weight = layer.weight.double().cpu()
        layer.bias.add_((weight @ shift_C).to(layer.bias))
        layer.weight.copy_(weight * scale_C)
