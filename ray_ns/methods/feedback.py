"""The mathematics of Meta Pseudo Labels (Pham et al. 2021), of UDA (Xie et al. 2020) and of plain pseudo labels.

The teacher's labels move the student by one SGD step, and the teacher learns from what the step did to the student's
loss on labelled images: the **feedback** ``h``, that loss before the step minus that after it. So h > 0 where the
labels were good, and the teacher's loss is h x cross-entropy(the labels it gave, its own logits): section 2 and
appendix A of the paper. h is a finite difference of the exact derivative, without a second pass back.

The released code differs: its scalar is the loss after minus that before, the opposite sign, and it is multiplied by
the cross-entropy of soft labels without gradient against the same logits, whose gradient is zero (``released``).

Shapes: n images, C classes; any dimensions may stand before n, such as one of independent runs.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

Scalar = TypeVar("Scalar", float, Tensor)


def sampled(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Hard labels (n) int64 of ``probabilities`` (n, C): class c for the share p[c] of the ``uniform`` (n) in [0, 1).

    Each image's label depends on its own numbers alone, so it is the same on any number of workers. A class of
    probability 0 is never drawn, whatever rounding does. The rows need not sum to 1.
    """
    summed = probabilities.double().cumsum(-1)
    passed = uniform.double().unsqueeze(-1) * summed[..., -1:] >= summed
    possible = torch.arange(probabilities.shape[-1], device=probabilities.device) * (probabilities > 0)
    return torch.minimum(passed.sum(-1), possible.amax(-1))


def consistency(weak: Tensor, strong: Tensor, temperature: float, threshold: float) -> Tensor:
    """UDA's loss (n): cross-entropy of the logits ``strong`` against what the logits ``weak``, both (n, C), say.

    The target is softmax(weak / temperature), without gradient. An image whose target's largest probability is below
    ``threshold`` has loss 0. That is the target as it is, sharpened, as in the released code of Meta Pseudo Labels
    (training_utils.py, build_uda_cross_entropy); UDA's own (image/main.py) asks the probability before it is
    sharpened. Divide the sum by all images, those that are masked too, as both do.
    """
    target = (weak.detach() / temperature).softmax(-1)
    sure = target.amax(-1) >= threshold
    return -(target * strong.log_softmax(-1)).sum(-1) * sure


def ramp(step: int, steps: int) -> float:
    """What UDA's weight is multiplied by in step ``step``, from 0: linear, 1 from the last of ``steps`` on.

    The released code's step / steps leaves it out of the first step.
    """
    return min(1.0, (step + 1) / steps) if steps > 0 else 1.0


def cosine(one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    """The cosine (a scalar, float64, in -1..1) of two gradients, each in pieces of the same shapes; 0 if one is 0.

    In the place of h it says how well the labels' gradient agrees with that of the labelled images, however small
    both are: the normalised feedback of "Semi-supervised learning by coaching", the longer report on the method.
    """
    pairs = [(a.double(), b.double()) for a, b in zip(one, other, strict=True)]
    product = torch.stack([(a * b).sum() for a, b in pairs]).sum()
    lengths = [torch.stack([it.square().sum() for it in side]).sum().sqrt() for side in zip(*pairs, strict=True)]
    whole = lengths[0] * lengths[1]
    return torch.where(whole > 0, product / whole.clamp_min(torch.finfo(whole.dtype).tiny), 0.0)


def soft_gradient(
    student_log_probs: Callable[[Mapping[str, Tensor]], Tensor],
    weights: Mapping[str, Tensor],
    direction: Mapping[str, Tensor],
    lr: float,
    n_total: int,
) -> Tensor:
    """The derivative (n, C) of the student's labelled loss after its step with respect to the soft labels y (n, C).

    The step is theta' = theta - lr x gradient of sum(-y log p) / ``n_total``, so dL/dy = lr / n_total x the derivative
    of log p along ``direction``, the gradient of the labelled loss L at theta'. ``weights``: theta. n_total: the images
    of the step over all workers. ``student_log_probs``: log p (n, C) of given weights; it must draw as it drew in the
    step. (y x what this returns).sum() is the teacher's exact loss, up to a constant.

    The derivative along a direction is taken by going back twice, which every layer supports.
    """
    theta = {name: it.detach().requires_grad_() for name, it in weights.items()}
    with torch.enable_grad():
        log_probs = student_log_probs(theta)
        dual = torch.zeros_like(log_probs, requires_grad=True)
        back = torch.autograd.grad(log_probs, list(theta.values()), dual, create_graph=True, materialize_grads=True)
        along = torch.stack([(it * direction[name]).sum() for name, it in zip(theta, back, strict=True)]).sum()
        (found,) = torch.autograd.grad(along, dual, materialize_grads=True)
    return found * (lr / n_total)


def hard_term(labels: Tensor, logits: Tensor, coefficient: float | Tensor) -> Tensor:
    """The teacher's loss (n) by drawn ``labels`` (n): ``coefficient`` x their cross-entropy with its ``logits`` (n, C).

    The coefficient, h as a rule, has no gradient; a tensor must broadcast to (n). The labels are those that the student
    got, and the logits those they were drawn from: only then is the mean over the draws the exact gradient.
    """
    likely = logits.log_softmax(-1).gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    return -likely * (coefficient.detach() if isinstance(coefficient, Tensor) else coefficient)


def released(logits: Tensor, coefficient: float | Tensor) -> Tensor:
    """The term (n) of the released code: soft labels without gradient against the ``logits`` (n, C) that they are of.

    Its gradient is coefficient x (p - p): zero but for rounding, so its teacher learns nothing by it.
    """
    own = logits.log_softmax(-1)
    entropy = -(own.detach().exp() * own).sum(-1)
    return entropy * (coefficient.detach() if isinstance(coefficient, Tensor) else coefficient)


def advance(baseline: Scalar, h: Scalar, decay: float) -> Scalar:
    """The moving average of the feedback after ``h``. Subtract the one before it from h: less variance, no bias."""
    return decay * baseline + (1 - decay) * h
