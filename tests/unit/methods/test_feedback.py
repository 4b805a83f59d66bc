"""The teacher's feedback: each estimator against the exact derivative, by enumeration of all labels; labels, UDA."""

import itertools
from collections.abc import Callable, Mapping

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from ray_ns.methods import feedback

N, C, WIDE = 3, 3, 4
PROBLEMS = range(20)
LABELLINGS = torch.tensor(list(itertools.product(range(C), repeat=N)))  # (27, N)
Weights = Mapping[str, Tensor]


class Problem:
    """A student and a teacher of a few weights, three images without labels and five with."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        self.student, self.teacher = (
            nn.Sequential(nn.Linear(WIDE, 5), nn.Tanh(), nn.Linear(5, C)).double() for _ in range(2)
        )
        self.images, self.labelled = torch.randn(N, WIDE).double(), torch.randn(5, WIDE).double()
        self.truth = torch.randint(C, (5,))
        self.theta = dict(self.student.named_parameters())

    def log_probs(self, weights: Weights) -> Tensor:
        return functional_call(self.student, dict(weights), (self.images,)).log_softmax(-1)

    def labelled_loss(self, weights: Weights) -> Tensor:
        return F.cross_entropy(functional_call(self.student, dict(weights), (self.labelled,)), self.truth)

    def pseudo_gradient(self, targets: Tensor, create_graph: bool = False) -> Weights:
        loss = -(targets * self.log_probs(self.theta)).sum() / N
        found = torch.autograd.grad(loss, list(self.theta.values()), create_graph=create_graph)
        return dict(zip(self.theta, found, strict=True))

    def stepped(self, targets: Tensor, lr: float, create_graph: bool = False) -> Weights:
        """The student's weights after its step on soft or one-hot ``targets`` (N, C)."""
        gradient = self.pseudo_gradient(targets, create_graph)
        return {name: it - lr * gradient[name] for name, it in self.theta.items()}

    def labelled_gradient(self, weights: Weights) -> Weights:
        leaves = {name: it.detach().requires_grad_() for name, it in weights.items()}
        return dict(zip(leaves, torch.autograd.grad(self.labelled_loss(leaves), list(leaves.values())), strict=True))

    def teacher_gradient(self, loss_of: Callable[[Tensor], Tensor]) -> list[Tensor]:
        return list(torch.autograd.grad(loss_of(self.teacher(self.images)), list(self.teacher.parameters())))

    def exact(self, lr: float) -> list[Tensor]:
        """The truth: straight through the student's step on the teacher's soft labels."""
        return self.teacher_gradient(
            lambda logits: self.labelled_loss(self.stepped(logits.softmax(-1), lr, create_graph=True))
        )

    def expected(self, feedback_of: Callable[[Tensor], Tensor]) -> list[Tensor]:
        """The mean over all labellings of the teacher's gradient by the hard term, whose factor ``feedback_of`` is."""
        likely = self.teacher(self.images).detach().softmax(-1)
        chance = likely[range(N), LABELLINGS].prod(-1)
        h = torch.stack([torch.as_tensor(feedback_of(F.one_hot(it, C).double())) for it in LABELLINGS])

        def loss_of(logits: Tensor) -> Tensor:
            each = feedback.hard_term(LABELLINGS, logits.expand(len(LABELLINGS), N, C), h[:, None])
            return (each.sum(-1) * chance).sum()

        return self.teacher_gradient(loss_of)

    def difference(self, lr: float) -> Callable[[Tensor], Tensor]:
        """h: the labelled loss before the step on given targets minus that after it."""
        before = self.labelled_loss(self.theta).detach()
        return lambda targets: before - self.labelled_loss(self.stepped(targets, lr)).detach()

    def normalised(self, lr: float) -> Callable[[Tensor], Tensor]:
        """The cosine of the labels' gradient with that of the labelled images at the new weights."""

        def h(targets: Tensor) -> Tensor:
            after = self.labelled_gradient(self.stepped(targets, lr))
            return feedback.cosine(list(after.values()), list(self.pseudo_gradient(targets).values()))

        return h


@pytest.mark.parametrize("lr", [0.01, 0.1])
def test_the_finite_difference_is_the_exact_gradient_in_the_mean_over_all_labels(lr: float) -> None:
    """Worst of 20 problems: .9999 at .01, .99 at .1."""
    for seed in PROBLEMS:
        problem = Problem(seed)
        assert feedback.cosine(problem.expected(problem.difference(lr)), problem.exact(lr)) > 0.99


@pytest.mark.parametrize("lr", [0.01, 0.1])
def test_the_normalised_feedback_points_the_same_way(lr: float) -> None:
    for seed in PROBLEMS:
        problem = Problem(seed)
        assert feedback.cosine(problem.expected(problem.normalised(lr)), problem.exact(lr)) > 0.85


def test_a_baseline_changes_no_mean() -> None:
    problem = Problem(0)
    h = problem.difference(0.1)
    for a, b in zip(problem.expected(h), problem.expected(lambda y: h(y) - 3.0), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("lr", [0.01, 0.1, 1.0])
def test_the_soft_gradient_is_exact(lr: float) -> None:
    for seed in PROBLEMS:
        problem = Problem(seed)
        soft = problem.teacher(problem.images).detach().softmax(-1)
        after = problem.labelled_gradient(problem.stepped(soft, lr))
        by_label = feedback.soft_gradient(problem.log_probs, problem.theta, after, lr, N)
        assert not by_label.requires_grad
        found = problem.teacher_gradient(lambda logits, by=by_label: (logits.softmax(-1) * by).sum())
        for a, b in zip(found, problem.exact(lr), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_the_soft_gradient_of_weights_that_are_not_used_is_that_of_the_others() -> None:
    problem = Problem(0)
    direction = {name: torch.ones_like(it) for name, it in problem.theta.items()}
    wanted = feedback.soft_gradient(problem.log_probs, problem.theta, direction, 0.1, N)
    more = {"more": torch.ones(2).double()}
    used = {name: problem.theta[name] for name in problem.theta}
    found = feedback.soft_gradient(
        lambda all_: problem.log_probs({name: all_[name] for name in used}), used | more, direction | more, 0.1, N
    )
    torch.testing.assert_close(found, wanted)


def test_the_released_codes_term_teaches_nothing() -> None:
    for seed in PROBLEMS:
        problem = Problem(seed)
        found = problem.teacher_gradient(lambda logits: feedback.released(logits, -0.7).sum())
        assert max(it.abs().max().item() for it in found) < 1e-14  # rounding of numbers of size 1
    logits = torch.tensor([[1.0, 2.0, -1.0]], dtype=torch.float64)
    soft = logits.softmax(-1)
    torch.testing.assert_close(feedback.released(logits, 2.0), 2 * F.cross_entropy(logits, soft, reduction="none"))


def test_the_feedback_lowers_the_students_labelled_loss_and_flipped_raises_it() -> None:
    """A step of the teacher along the feedback, then the student's step on its new labels."""
    for seed in PROBLEMS:
        problem = Problem(seed)
        h = problem.difference(0.1)
        towards = problem.expected(h)

        def loss_after(sign: float, problem: Problem = problem, towards: list[Tensor] = towards) -> float:
            length = torch.stack([it.square().sum() for it in towards]).sum().sqrt()
            moved = {
                name: it.detach() - sign * 0.1 * step / length
                for (name, it), step in zip(problem.teacher.named_parameters(), towards, strict=True)
            }
            soft = functional_call(problem.teacher, moved, (problem.images,)).softmax(-1).detach()
            return problem.labelled_loss(problem.stepped(soft, 0.1)).item()

        assert loss_after(1) < loss_after(0) < loss_after(-1)


def test_labels_are_drawn_by_the_inverse_of_the_distribution() -> None:
    likely = torch.tensor([[0.2, 0.5, 0.3]]).expand(7, 3)
    uniform = torch.tensor([0.0, 0.19, 0.21, 0.69, 0.71, 0.99, 1 - 2**-24])
    assert feedback.sampled(likely, uniform).tolist() == [0, 0, 1, 1, 2, 2, 2]
    assert feedback.sampled(likely, uniform).dtype == torch.int64


def test_labels_have_the_frequencies_of_the_distribution() -> None:
    likely = torch.tensor([0.1, 0.0, 0.6, 0.3])
    drawn = feedback.sampled(likely.expand(10_000, 4), (torch.arange(10_000) + 0.5) / 10_000)
    assert torch.bincount(drawn, minlength=4).tolist() == [1000, 0, 6000, 3000]


def test_a_class_of_probability_0_is_never_drawn() -> None:
    """At both ends of the numbers, and with probabilities whose sum is not 1: rounding, bfloat16."""
    ends = torch.tensor([0.0, 1.0])  # 1.0 itself, which a generator's rounding can give
    assert feedback.sampled(torch.tensor([[0.0, 0.6, 0.4, 0.0]]).expand(2, 4), ends).tolist() == [1, 2]
    assert feedback.sampled(torch.tensor([[0.0, 0.3, 0.3, 0.0]]).expand(2, 4), ends).tolist() == [1, 2]
    rounded = torch.randn(1000, 50).softmax(-1).bfloat16()
    assert feedback.sampled(rounded, torch.ones(1000)).max() < 50


def test_labels_of_one_image_do_not_depend_on_the_others() -> None:
    torch.manual_seed(0)
    likely, uniform = torch.randn(2, 5, 4).softmax(-1), torch.rand(2, 5)
    whole = feedback.sampled(likely, uniform)
    assert whole.shape == (2, 5)
    assert [feedback.sampled(likely[0, [i]], uniform[0, [i]]).item() for i in range(5)] == whole[0].tolist()


def test_consistency_is_masked_by_the_sharpened_target() -> None:
    """Of p = .55, sharpened at .5 to .6 of two classes: above a threshold of .58, which p is not."""
    weak = torch.tensor([[0.55, 0.45], [0.52, 0.48]]).log()
    strong = torch.tensor([[0.0, 1.0], [0.0, 1.0]], requires_grad=True)
    found = feedback.consistency(weak, strong, temperature=0.5, threshold=0.58)
    target = torch.tensor([0.55**2, 0.45**2]) / (0.55**2 + 0.45**2)
    torch.testing.assert_close(found[0], F.cross_entropy(strong[0], target))
    assert target[0] > 0.58
    assert found[1] == 0
    (gradient,) = torch.autograd.grad(found.sum(), strong)
    torch.testing.assert_close(gradient[0], strong[0].softmax(-1) - target)
    assert gradient[1].tolist() == [0, 0]


def test_the_target_of_consistency_has_no_gradient() -> None:
    weak = torch.randn(4, 3, requires_grad=True)
    assert not feedback.consistency(weak, torch.zeros(4, 3), 1.0, 0.0).requires_grad


def test_the_ramp() -> None:
    assert [feedback.ramp(step, 4) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    assert feedback.ramp(0, 0) == 1


def test_cosine() -> None:
    torch.manual_seed(0)
    one, other = [torch.randn(3, 2), torch.randn(5)], [torch.randn(3, 2), torch.randn(5)]
    flat = [torch.cat([it.flatten() for it in side]) for side in (one, other)]
    assert feedback.cosine(one, other).item() == pytest.approx(F.cosine_similarity(*flat, dim=0).item(), abs=1e-6)
    assert feedback.cosine(one, [1e-30 * it for it in one]).item() == pytest.approx(1)  # a square that float32 has not
    assert feedback.cosine(one, [0 * it for it in one]) == 0
    stacked = [torch.stack([it, -it]) for it in one]
    each = torch.func.vmap(feedback.cosine)(stacked, [torch.stack([it, it]) for it in one])
    torch.testing.assert_close(each, torch.tensor([1.0, -1.0]).double())


def test_the_hard_term() -> None:
    logits, labels = torch.randn(4, 3, requires_grad=True), torch.tensor([0, 2, 1, 1])
    torch.testing.assert_close(
        feedback.hard_term(labels, logits, -0.5), -0.5 * F.cross_entropy(logits, labels, reduction="none")
    )
    h = torch.tensor(2.0, requires_grad=True)
    (by_h,) = torch.autograd.grad(
        feedback.hard_term(labels, logits, h).sum(), h, materialize_grads=True, allow_unused=True
    )
    assert by_h == 0


def test_the_baseline_moves_by_what_its_decay_leaves() -> None:
    assert feedback.advance(1.0, 3.0, 0.75) == 1.5
    assert feedback.advance(torch.zeros(2), torch.tensor([1.0, -1.0]), 0.99).tolist() == pytest.approx([0.01, -0.01])
