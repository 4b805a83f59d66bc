"""The exponential moving average of a network's weights (timm's ModelEmaV3). It labels and is evaluated."""

from typing import Literal

from timm.utils.model_ema import ModelEmaV3
from torch import nn

Warmup = Literal["tensorflow", "timm"]


class _AsTensorflow(ModelEmaV3):
    """The average whose decay at update t is ``min(decay, (1 + t) / (10 + t))``.

    That is ``tf.train.ExponentialMovingAverage`` with ``num_updates``, by which the released code averages. It reaches
    0.9999 at t = 89,990; timm's own warm-up does so at 1,000,000.
    """

    def get_decay(self, step: int | None = None) -> float:
        assert step is not None, "an update says which one it is"
        return min(self.decay, (1 + step) / (10 + step))


def averaged(network: nn.Module, decay: float | None, warmup: Warmup) -> ModelEmaV3 | None:
    """An average of ``network``, None where ``decay`` is. ``timm``: its decay after t updates is 1 - t ** (-2/3)."""
    if decay is None:
        return None
    kind = ModelEmaV3 if warmup == "timm" else _AsTensorflow
    return kind(network, decay=decay, use_warmup=True)
