"""What labels do to the student: its step, and the feedback to whoever gave them (Pham et al. 2021, section 2)."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from ray_ns.config import MetaPseudoLabels
from ray_ns.methods.feedback import advance, cosine, soft_gradient
from ray_ns.models.loss import smooth
from ray_ns.models.untouched import Draws, untouched
from ray_ns.train.objective import Agree
from ray_ns.train.state import Net, TrainState

BASELINE, FEEDBACK = "feedback_baseline", "feedback"  # in the state: the moving average, and the last one


@dataclass(frozen=True)
class Lesson:
    """Images that the student learns from, and those on which it is asked how that went.

    ``noised``: pixels of pool images; ``labelled``: of labelled ones. ``targets`` (n, classes): the distributions given
    for the pool images, without gradient; ``truth`` (m, classes): true ones, smoothed or not, zeros for images that
    cannot be read; ``readable``: which pool images can be, bool (n,). ``drawn``: the classes, int64 (n,), where classes
    are given.
    """

    noised: Tensor
    labelled: Tensor
    targets: Tensor
    truth: Tensor
    readable: Tensor
    drawn: Tensor | None = None


@dataclass(frozen=True)
class Answer:
    """What it did, over all workers. ``loss``: the student's of these labels; ``h``: the feedback less its baseline.

    ``exact``: instead of ``h`` the derivative of its labelled loss after the step by this worker's labels (n, classes).
    """

    loss: float
    h: float = 0.0
    exact: Tensor | None = None


def learn(state: TrainState, lesson: Lesson, mpl: MetaPseudoLabels, agree: Agree) -> Answer:
    """Let the student take its step by the ``lesson``, and say what that did to its loss on the labelled images."""
    student, draws = state.kept, Draws.next(lesson.noised.device)
    before = {"before": _asked(student, lesson, draws)} if mpl.feedback == "difference" else {}
    weights = _weights(student) if mpl.feedback == "exact" else {}
    loss = _mean(student(lesson.noised), lesson.targets, lesson.readable)
    loss.backward()
    taught = _gradients(student) if mpl.feedback == "cosine" else {}
    means = agree(loss.detach(), student, **before)
    if mpl.feedback == "difference":
        after = agree(loss.detach(), after=_asked(student, lesson, draws))["after"]
        return _answer(state, means["loss"], means["before"] - after, mpl)
    if mpl.feedback == "cosine":
        asked = _asked_back(student, lesson, draws)
        return _answer(state, means["loss"], float(cosine(list(asked.values()), list(taught.values()))), mpl)
    if mpl.feedback == "exact":
        direction = _asked_back(student, lesson, draws)
        return Answer(means["loss"], exact=_exact(student, lesson, weights, direction, draws))
    return Answer(means["loss"])


def _answer(state: TrainState, loss: float, h: float, mpl: MetaPseudoLabels) -> Answer:
    """``h`` less its moving average, which follows."""
    baseline = state.scalars.get(BASELINE, 0.0)
    state.scalars[FEEDBACK] = h
    if mpl.baseline:
        state.scalars[BASELINE] = advance(baseline, h, mpl.baseline)
    return Answer(loss, h - baseline)


def _asked(student: Net, lesson: Lesson, draws: Draws) -> Tensor:
    """The student's loss on the labelled images, as it is trained, leaving no trace.

    In float32 whatever the precision of the training: one step changes the loss by less than bfloat16 resolves.
    """
    with torch.no_grad(), untouched(student.network, draws):
        return labelled_loss(student.network(lesson.labelled), lesson.truth)


def _asked_back(student: Net, lesson: Lesson, draws: Draws) -> dict[str, Tensor]:
    """The gradient of that loss, over all workers."""
    student.optimizer.zero_grad()
    with untouched(student.network, draws):
        labelled_loss(student(lesson.labelled), lesson.truth).backward()
    return _gradients(student)


def labelled_loss(logits: Tensor, truth: Tensor, smoothing: float = 0.0) -> Tensor:
    """The mean cross-entropy of ``logits`` (n, classes), by default the paper's L_l, which is not smoothed.

    ``truth`` (n, classes): smoothed or not; zeros for images that cannot be read, whose loss is 0.
    """
    return _mean(logits, smooth(truth.argmax(1), truth.shape[1], smoothing), truth.any(1))


def _exact(
    student: Net, lesson: Lesson, weights: Mapping[str, Tensor], direction: Mapping[str, Tensor], draws: Draws
) -> Tensor:
    """The derivative of the labelled loss by the labels of this worker, as if the step had been plain SGD's."""

    def log_probs(theta: Mapping[str, Tensor]) -> Tensor:
        logits: Tensor = functional_call(student.network, dict(theta), (lesson.noised,))
        return logits.float().log_softmax(1)

    with untouched(student.network, draws):
        # The workers' gradients are averaged, so each divides by its own images alone.
        lr = student.optimizer.param_groups[0]["lr"]
        found = soft_gradient(log_probs, weights, direction, lr, len(lesson.noised))
    return torch.where(lesson.readable[:, None], found, 0)


def _mean(logits: Tensor, targets: Tensor, readable: Tensor) -> Tensor:
    """The mean cross-entropy; 0 for images that cannot be read."""
    return torch.where(readable, F.cross_entropy(logits.float(), targets, reduction="none"), 0).mean()


def _weights(net: Net) -> dict[str, Tensor]:
    return {name: it.detach().clone() for name, it in net.network.named_parameters() if it.requires_grad}


def _gradients(net: Net) -> dict[str, Tensor]:
    return {name: it.grad.clone() for name, it in net.network.named_parameters() if it.grad is not None}
