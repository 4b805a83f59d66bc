"""Sharpness-aware minimisation (Foret et al. 2021, algorithm 1): the gradient of where the loss is worst nearby.

The first pass gives the gradient g of the step's images at the weights w, the second one the gradient at
w + rho x g / |g|, by which w is updated. Both are gradients of the global batch, summed over microbatches and workers,
so the result does not depend on how many of them there are. (The paper's own code perturbs each accelerator by the
gradient of its share alone, called m-sharpness.)
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ray_ns.models.untouched import Draws, untouched
from ray_ns.train.state import Net
from ray_ns.train.step import Piece, Share


def backward(net: Net, share: Share, loss_of: Callable[[Piece], Tensor], rho: float) -> Tensor:
    """Go back through ``loss_of`` each piece, and with ``rho`` > 0 again from where it is worst; the loss at w.

    Both passes see the same draws. Weights and running statistics are afterwards as the first pass left them. Where the
    first gradient is not finite the second is not either, which stops the step as any other does.
    """
    draws = Draws.next(share.device)
    loss = share.backward(loss_of)
    if rho:
        with untouched(net.network, draws), _climbed(net, rho):
            net.optimizer.zero_grad()
            share.backward(loss_of)
    return loss


@contextmanager
def _climbed(net: Net, rho: float) -> Iterator[None]:
    """While the block runs, the weights lie ``rho`` up their gradient."""
    weights = [weight for weight in net.network.parameters() if weight.grad is not None]
    kept = [weight.detach().clone() for weight in weights]
    up = [weight.grad for weight in weights if weight.grad is not None]
    norm = torch.nn.utils.get_total_norm(up)
    try:
        with torch.no_grad():
            # A gradient of 0 is a minimum: there is nowhere to climb.
            length = norm.clamp(min=torch.finfo(norm.dtype).tiny)
            for weight, gradient in zip(weights, up, strict=True):
                weight.add_(rho * gradient / length)
        yield
    finally:
        with torch.no_grad():
            for weight, before in zip(weights, kept, strict=True):
                weight.copy_(before)
