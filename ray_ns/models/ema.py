"""The exponential moving average of a network's weights (timm's ModelEmaV3). It labels and is evaluated."""

from timm.utils.model_ema import ModelEmaV3
from torch import nn


def averaged(network: nn.Module, decay: float | None) -> ModelEmaV3 | None:
    """An average of ``network`` with warm-up: the decay after t steps is at most 1 - (1 + t) ** (-2/3)."""
    return ModelEmaV3(network, decay=decay, use_warmup=True) if decay is not None else None
