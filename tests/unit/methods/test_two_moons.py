"""Two moons: the data, the step against one written another way, and rows that do not touch one another.

What the methods come to at full length: ``make two-moons``.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, nn

from ray_ns.methods import feedback
from ray_ns.methods.two_moons import VARIANTS, Moons, Settings, Step, Variant, begin, draw, logits_of, train

SHORT = Settings(points=200, hidden=(8, 8), batch=16, steps=6)


def test_the_points_lie_on_two_moons_and_are_standardised() -> None:
    settings = Settings(scale=0)
    points, moons, labelled = draw(settings, Generator().manual_seed(0))
    assert points.shape == (2000, 2)
    torch.testing.assert_close(points.mean(0), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(points.std(0), torch.ones(2))
    assert torch.bincount(moons).tolist() == [1000, 1000]
    assert moons[labelled].tolist() == [0, 0, 0, 1, 1, 1]
    assert len(set(labelled.tolist())) == 6
    upper, lower = points[moons == 0], points[moons == 1]
    wide, tall = (upper.amax(0) - upper.amin(0)).tolist()
    assert wide / tall == pytest.approx(2 * _ratio(), rel=0.02)
    assert upper[:, 1].amin() < lower[:, 1].amax() < upper[:, 1].amax()  # they reach into one another


def _ratio() -> float:
    """The deviation of the heights of two plain half circles by that of their widths, which standardising undoes."""
    angle = torch.linspace(0, math.pi, 10_001).double()
    wide, tall = torch.cat([angle.cos(), 1 - angle.cos()]), torch.cat([angle.sin(), 0.5 - angle.sin()])
    return (tall.std() / wide.std()).item()


def test_the_points_lie_as_far_off_as_scale_says() -> None:
    """A variance of .75 of the widths (a half circle's .5, and .25 between the two) and of scale squared."""
    wide = [draw(Settings(scale=it), Generator().manual_seed(0))[0][:, 0] for it in (0, 0.5)]
    off = wide[1] * math.sqrt(0.75 + 0.25) - wide[0] * math.sqrt(0.75)
    assert off.std().item() == pytest.approx(0.5, rel=0.1)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda it: it.name)
def test_a_seed_is_the_same_beside_others(variant: Variant) -> None:
    alone, beside = train(variant, [3], SHORT), train(variant, [1, 3], SHORT)
    for one, other in zip(alone.weights, beside.weights, strict=True):
        torch.testing.assert_close(one[0], other[1])
    torch.testing.assert_close(alone.data.points[0], beside.data.points[1])
    assert not torch.equal(beside.data.points[0], beside.data.points[1])


def network(weights: list[torch.Tensor]) -> nn.Sequential:
    """The network of the first seed, as torch would write it."""
    made = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    with torch.no_grad():
        for layer, weight, bias in zip(made[::2], weights[::2], weights[1::2], strict=True):
            layer.weight.copy_(weight[0].T)
            layer.bias.copy_(bias[0, 0])
    return made


@pytest.mark.parametrize("factor", [5.0, 0.0, -5.0])
def test_a_step_of_meta_pseudo_labels_is_the_papers(factor: float) -> None:
    """The student on drawn labels; then the teacher on UDA, and on their loss times the cosine less its average."""
    torch.manual_seed(0)
    generators = [Generator().manual_seed(1)]
    data = Moons(*(it.unsqueeze(0) for it in draw(SHORT, generators[0])))
    teacher, student = (begin([2, 8, 8, 2], generators) for _ in range(2))
    one, two = network(teacher), network(student)
    variant = Variant("", labelled=0.5, consistency=16, feedback=factor, student=True)
    step = Step(variant, SHORT, data)
    chosen, noise, uniform = torch.randint(200, (1, 16)), torch.randn(1, 16, 2), torch.rand(1, 16)

    points, six = data.points[0, chosen[0]], data.points[0, data.labelled[0]]
    truth = data.moons[0, data.labelled[0]]
    average = 0.0
    for _ in range(2):
        step(teacher, student, chosen, noise, uniform)
        before = one(points)
        labels = feedback.sampled(before.softmax(-1), uniform[0])
        taken = torch.autograd.grad(F.cross_entropy(two(points), labels), list(two.parameters()))
        with torch.no_grad():
            for weight, gradient in zip(two.parameters(), taken, strict=True):
                weight -= SHORT.lr * gradient
        wanted = torch.autograd.grad(F.cross_entropy(two(six), truth), list(two.parameters()))
        flat = [torch.cat([it.flatten() for it in side]) for side in (taken, wanted)]
        h = F.cosine_similarity(*flat, dim=0)
        strong = one(points + SHORT.sigma * noise[0])
        loss = (
            0.5 * F.cross_entropy(one(six), truth)
            + 16 * F.cross_entropy(strong, before.detach().softmax(-1))
            + factor * (h - average) * F.cross_entropy(before, labels)
        )
        average = (1 - SHORT.decay) * h  # of the first step, for the second one
        for weight, gradient in zip(one.parameters(), torch.autograd.grad(loss, list(one.parameters())), strict=True):
            with torch.no_grad():
                weight -= SHORT.lr * gradient
        for mine, theirs in ((teacher, one), (student, two)):
            torch.testing.assert_close(logits_of(mine, points.unsqueeze(0))[0], theirs(points), atol=1e-5, rtol=1e-4)


def test_the_student_has_nothing_but_the_teachers_labels() -> None:
    """Without feedback the labelled points reach it through the teacher alone: other truths, the same student."""
    data = Moons(*(it.unsqueeze(0) for it in draw(SHORT, Generator().manual_seed(1))))
    turned = Moons(data.points, 1 - data.moons, data.labelled)
    students = []
    for given in (data, turned):
        generators = [Generator().manual_seed(2)]
        teacher, student = (begin([2, 8, 8, 2], generators) for _ in range(2))
        step = Step(Variant("", labelled=0, consistency=16, student=True), SHORT, given)
        torch.manual_seed(0)
        for _ in range(3):
            step(teacher, student, torch.randint(200, (1, 16)), torch.randn(1, 16, 2), torch.rand(1, 16))
        students.append(student)
    assert all(torch.equal(a, b) for a, b in zip(*students, strict=True))


def test_the_variants_of_the_page() -> None:
    only = next(it for it in VARIANTS if it.name == "no labels: UDA + feedback")
    assert (only.labelled, only.consistency, only.feedback, only.student) == (0, 16, 5, True)
    assert [it.feedback for it in VARIANTS if it.labelled == 0] == [5, 0, -5]
