"""Cross-entropy against true and pseudo labels. Shapes: B images, C classes."""

import torch
import torch.nn.functional as F
from torch import Tensor


def smooth(labels_B: Tensor, classes: int, smoothing: float) -> Tensor:
    """One-hot targets (B, C) of integer labels, with ``smoothing`` in 0..1 spread over all classes."""
    return F.one_hot(labels_B, classes).float() * (1 - smoothing) + smoothing / classes


def sharpen(probabilities_BC: Tensor, temperature: float) -> Tensor:
    """``p ** (1/temperature)``, renormalised: the released code's soft temperature (noisystudent main.py).

    Rows of zeros, of images that cannot be read, stay so.
    """
    positive = probabilities_BC.clamp_min(0)
    powered = positive ** (1 / temperature)
    tiny = torch.finfo(powered.dtype).tiny
    lost = powered.amax(1, keepdim=True) < tiny  # the power of every probability has run out of the number's range
    of_largest = positive / positive.amax(1, keepdim=True).clamp_min(tiny)
    powered = torch.where(lost, of_largest ** (1 / temperature), powered)
    return powered / powered.sum(1, keepdim=True).clamp_min(tiny)


def noisy_student_loss(logits_BC: Tensor, targets_BC: Tensor, labelled: int, kind: str) -> Tensor:
    """Loss of one step whose first ``labelled`` images have true labels and whose others have pseudo labels.

    ``mean``: the average over all images, labelled and not ("the average cross entropy loss", Noisy Student, section
    3.1). ``sum``: the mean over labelled images + ratio x the mean over the others, (1 + ratio) times as much: the
    released code divides both sums by the labelled batch (noisystudent main.py). Algorithm 1 weighs the two means
    alike, which is ``sum`` at ratio 1.
    """
    exact = torch.promote_types(logits_BC.dtype, torch.float32)
    each = F.cross_entropy(logits_BC.to(exact), targets_BC.to(exact), reduction="none")
    return each.mean() if kind == "mean" else each.sum() / labelled
