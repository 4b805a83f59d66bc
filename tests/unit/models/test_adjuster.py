"""The adjuster of stored labels: the identity at first, whatever it is given, and able to move a class to another."""

import numpy as np
import torch

from ray_ns.models.adjuster import Adjuster


def test_it_is_the_identity_at_first() -> None:
    torch.manual_seed(0)
    known = (torch.randn(8, 5) * 3).log_softmax(-1)
    torch.testing.assert_close(Adjuster(5)(known), known)


def test_a_probability_of_0_is_the_smallest_that_is_stored() -> None:
    adjuster = Adjuster(3)
    given = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]]).log()
    found = adjuster(given)
    torch.testing.assert_close(found.exp(), given.exp(), rtol=0, atol=1e-6)
    stored = torch.tensor([1.0, float(np.nextafter(np.float16(0), np.float16(1)))]).log()
    torch.testing.assert_close(Adjuster(2)(stored), Adjuster(2)(torch.tensor([1.0, 0.0]).log()))
    found[0, 0].backward()
    assert all(it.grad is not None and it.grad.isfinite().all() for it in adjuster.parameters())


def test_it_learns_to_move_a_class_to_another() -> None:
    """Two classes that a teacher always takes for each other."""
    adjuster, right = Adjuster(3), torch.arange(3)
    wrong = torch.full((3, 3), 0.05)
    wrong[right, torch.tensor([1, 0, 2])] = 0.9
    optimizer = torch.optim.SGD(adjuster.parameters(), lr=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        torch.nn.functional.nll_loss(adjuster(wrong.log()), right).backward()
        optimizer.step()
    assert adjuster(wrong.log()).argmax(-1).tolist() == [0, 1, 2]
