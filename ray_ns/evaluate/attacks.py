"""Images changed against the network that sees them: FGSM and PGD, within a box around each pixel.

They work in pixel space, 0..1, before normalisation, on the network as it is used (eval mode), and stay within 0..1.
Goodfellow et al. 2015; Madry et al. 2018, here from the image itself, without a random start.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    Logits = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Attack:
    """``steps`` steps of ``step`` along the sign of the loss's gradient, no pixel further than ``epsilon`` from before.

    Both are shares of a pixel's range. One step of ``epsilon`` is FGSM.
    """

    epsilon: float
    steps: int = 1
    step: float = 0.0

    def __call__(self, logits: "Logits", pixels: "torch.Tensor", truth: "torch.Tensor") -> "torch.Tensor":
        """The attacked images, float32 as ``pixels`` (n, channels, H, W) in 0..1; ``truth``: int64 (n,).

        ``logits``: of such images (n, classes). An image's gradient does not depend on the others of its batch.
        """
        import torch

        low, high = (pixels - self.epsilon).clamp(0, 1), (pixels + self.epsilon).clamp(0, 1)
        found = pixels
        for _ in range(self.steps):
            found = found.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(_loss(logits(found), truth), found)
            found = torch.minimum(torch.maximum(found + (self.step or self.epsilon) * gradient.sign(), low), high)
        return found.detach()


def _loss(logits: "torch.Tensor", truth: "torch.Tensor") -> "torch.Tensor":
    """What rises and falls with the cross-entropy of each image: how far the others' logits lie above the truth's.

    The cross-entropy is softplus of it, so the gradients of an image differ by a factor above 0, and only signs are
    asked for. That factor is the probability of all other classes: of a network that is very sure of itself it is lost
    in rounding, in float32 from a margin of 12 on, and 0 from 17 on, and the sign with it.
    """
    import torch

    precise, at = logits.double(), truth[:, None]
    others = precise.scatter(1, at, -torch.inf)
    return (torch.logsumexp(others, 1) - precise.gather(1, at)[:, 0]).sum()
