"""Two moons: what each method makes of 2,000 points of which six are labelled (Pham et al. 2021, section 3.1).

Every seed draws other points, labelled ones, first weights and batches, the same for every variant. All seeds of a
variant are trained at once: the first dimension of whatever belongs to them is S, the seeds.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from ray_ns import keyed
from ray_ns.methods import feedback

AHEAD = 100  # steps whose draws are made together
Weights = list[Tensor]  # (S, in, out) and (S, 1, out) of each layer


@dataclass(frozen=True)
class Settings:
    """What all variants share. ``sigma``: of the normal noise of UDA's second view; the data have deviation 1.

    ``scale``: how far the points lie off their moon. ``decay``: of the moving average that is subtracted from h.
    """

    points: int = 2000
    scale: float = 0.1
    labels_per_moon: int = 3
    hidden: tuple[int, ...] = (32, 32)
    lr: float = 0.1
    batch: int = 128
    steps: int = 5000
    sigma: float = 0.2
    decay: float = 0.99


@dataclass(frozen=True)
class Variant:
    """A method. The numbers weigh the terms of the loss of the network that gives labels, the teacher.

    ``labelled``: cross-entropy of the six points. ``plain``: that of its own likeliest classes (Lee 2013).
    ``consistency``: UDA. ``feedback``: the term of Meta Pseudo Labels, where h is a cosine. ``student``: whether there
    is a student, which sees nothing but labels drawn from the teacher, and is judged in its place.
    """

    name: str
    labelled: float = 1
    plain: float = 0
    consistency: float = 0
    feedback: float = 0
    student: bool = False


VARIANTS = (
    Variant("supervised"),
    Variant("pseudo labels", plain=1),
    Variant("UDA", consistency=16),
    Variant("UDA, student without feedback", consistency=16, student=True),
    Variant("UDA, student with feedback", consistency=16, feedback=5, student=True),
    Variant("no labels: UDA + feedback", labelled=0, consistency=16, feedback=5, student=True),
    Variant("no labels: UDA, feedback 0", labelled=0, consistency=16, student=True),
    Variant("no labels: UDA, feedback flipped", labelled=0, consistency=16, feedback=-5, student=True),
)


@dataclass(frozen=True)
class Moons:
    """Of each seed N points (S, N, 2), the moon of each (S, N), 0 or 1, and the indices (S, L) of the labelled ones."""

    points: Tensor
    moons: Tensor
    labelled: Tensor

    def at(self, chosen: Tensor) -> Tensor:
        """The points (S, n, 2) of the indices ``chosen`` (S, n)."""
        return self.points.gather(1, chosen.unsqueeze(-1).expand(-1, -1, 2))


@dataclass(frozen=True)
class Trained:
    """What one variant came to: ``accuracy`` (S) in 0..1 on all points, and the ``weights`` that have it."""

    accuracy: Tensor
    weights: Weights
    data: Moons

    def classes(self, at: int, points: Tensor) -> Tensor:
        """The class (n) that the network of one seed, the ``at``-th, gives each of the ``points`` (n, 2)."""
        return logits_of([it[at : at + 1] for it in self.weights], points.unsqueeze(0))[0].argmax(-1)


def draw(settings: Settings, generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
    """One seed's points (N, 2), standardised, their moons (N) and the indices (L) of those that are labelled."""
    half = settings.points // 2
    angle = torch.rand(2, half, generator=generator) * torch.pi
    upper = torch.stack([angle[0].cos(), angle[0].sin()], -1)
    lower = torch.stack([1 - angle[1].cos(), 0.5 - angle[1].sin()], -1)
    points = torch.cat([upper, lower])
    points = points + settings.scale * torch.randn(points.shape, generator=generator)
    chosen = [torch.randperm(half, generator=generator)[: settings.labels_per_moon] + moon * half for moon in (0, 1)]
    return (points - points.mean(0)) / points.std(0), torch.arange(2 * half) // half, torch.cat(chosen)


def begin(sizes: Sequence[int], generators: Sequence[Generator]) -> Weights:
    """First weights of a network for each of S seeds, uniform in +- 1 / sqrt(in). ``sizes``: input, hidden, classes."""
    drawn = (_one(sizes, it) for it in generators)
    return [torch.stack(it).requires_grad_() for it in zip(*drawn, strict=True)]


def _one(sizes: Sequence[int], generator: Generator) -> Weights:
    pairs = itertools.pairwise(sizes)
    return [
        (2 * torch.rand(rows, after, generator=generator) - 1) * before**-0.5
        for before, after in pairs
        for rows in (before, 1)
    ]


def logits_of(weights: Weights, points: Tensor) -> Tensor:
    """The logits (S, n, C) of ``points`` (S, n, in): layers with ReLU between them."""
    found = torch.baddbmm(weights[1], points, weights[0])
    for weight, bias in zip(weights[2::2], weights[3::2], strict=True):
        found = torch.baddbmm(bias, found.relu(), weight)
    return found


def train(variant: Variant, seeds: Sequence[int], settings: Settings | None = None) -> Trained:
    """Train a variant on every seed."""
    settings = settings or Settings()
    generators = [Generator().manual_seed(keyed.seed(seed) >> 1) for seed in seeds]
    data = Moons(*map(torch.stack, zip(*(draw(settings, it) for it in generators), strict=True)))
    teacher, student = (begin([2, *settings.hidden, 2], generators) for _ in range(2))
    step = Step(variant, settings, data)
    for first in range(0, settings.steps, AHEAD):
        shape = (min(AHEAD, settings.steps - first), settings.batch)
        chosen = torch.stack([torch.randint(settings.points, shape, generator=it) for it in generators], 1)
        noise = torch.stack([torch.randn(*shape, 2, generator=it) for it in generators], 1)
        uniform = torch.stack([torch.rand(shape, generator=it) for it in generators], 1)
        for draws in zip(chosen, noise, uniform, strict=True):
            step(teacher, student, *draws)
    judged = [it.detach() for it in (student if variant.student else teacher)]
    right = logits_of(judged, data.points).argmax(-1) == data.moons
    return Trained(right.double().mean(-1), judged, data)


class Step:
    """One step of all seeds: the student's on labels drawn from the teacher, then the teacher's."""

    def __init__(self, variant: Variant, settings: Settings, data: Moons) -> None:
        self.variant, self.settings, self.data = variant, settings, data
        self.six, self.truth = data.at(data.labelled), data.moons.gather(1, data.labelled)
        self.baseline = torch.zeros(len(data.points), dtype=torch.float64)

    def __call__(self, teacher: Weights, student: Weights, chosen: Tensor, noise: Tensor, uniform: Tensor) -> None:
        """``chosen`` (S, n): the points of the batch. ``noise`` (S, n, 2), ``uniform`` (S, n): the draws."""
        variant, points = self.variant, self.data.at(chosen)
        views = torch.cat([points, points + self.settings.sigma * noise, self.six], 1)
        weak, strong, six = logits_of(teacher, views).split([*[points.shape[1]] * 2, self.six.shape[1]], 1)
        loss = variant.labelled * cross_entropy(six, self.truth)
        if variant.plain:
            loss = loss + variant.plain * cross_entropy(weak, weak.argmax(-1))
        if variant.consistency:
            unlike = feedback.consistency(weak, strong, temperature=1, threshold=0)
            loss = loss + variant.consistency * unlike.mean(-1)
        if variant.student:
            labels = feedback.sampled(weak.detach().softmax(-1), uniform)
            h = self._learn(student, points, labels)
            factor = variant.feedback * (h - self.baseline)
            loss = loss + feedback.hard_term(labels, weak, factor.unsqueeze(-1)).mean(-1)
            self.baseline = feedback.advance(self.baseline, h, self.settings.decay)
        descend(teacher, torch.autograd.grad(loss.sum(), teacher), self.settings.lr)

    def _learn(self, student: Weights, points: Tensor, labels: Tensor) -> Tensor:
        """The student's step on the labels; h (S): the cosine of its gradient with that of the six points after it."""
        taken = torch.autograd.grad(cross_entropy(logits_of(student, points), labels).sum(), student)
        descend(student, taken, self.settings.lr)
        wanted = torch.autograd.grad(cross_entropy(logits_of(student, self.six), self.truth).sum(), student)
        return cosines(wanted, taken)


def descend(weights: Weights, gradients: Sequence[Tensor], lr: float) -> None:
    """Plain gradient descent, in place."""
    with torch.no_grad():
        for weight, gradient in zip(weights, gradients, strict=True):
            weight -= lr * gradient


def cosines(one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    """The cosine (S) of two gradients, seed by seed."""
    flat = ([torch.cat([it.flatten(1) for it in side], 1)] for side in (one, other))
    found: Tensor = torch.func.vmap(feedback.cosine)(*flat)
    return found


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean (S) over the points of logits (S, n, C) against labels (S, n)."""
    return feedback.hard_term(labels, logits, 1).mean(-1)
