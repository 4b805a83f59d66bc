import math

import pytest
import torch
import torch.nn.functional as F

from ray_ns.models.loss import noisy_student_loss, sharpen, smooth


def test_smoothing_is_spread_over_all_classes() -> None:
    found = smooth(torch.tensor([0, 2]), 4, 0.2)
    torch.testing.assert_close(found, torch.tensor([[0.85, 0.05, 0.05, 0.05], [0.05, 0.05, 0.85, 0.05]]))


def test_without_smoothing_targets_are_one_hot() -> None:
    assert torch.equal(smooth(torch.tensor([1, 0]), 2, 0.0), torch.tensor([[0.0, 1.0], [1.0, 0.0]]))


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [
        (1.0, [0.5, 0.3, 0.2]),
        (0.5, [0.25 / 0.38, 0.09 / 0.38, 0.04 / 0.38]),
        (2.0, [math.sqrt(p) / (math.sqrt(0.5) + math.sqrt(0.3) + math.sqrt(0.2)) for p in (0.5, 0.3, 0.2)]),
    ],
)
def test_sharpening_is_a_power_renormalised(temperature: float, expected: list[float]) -> None:
    torch.testing.assert_close(sharpen(torch.tensor([[0.5, 0.3, 0.2]]), temperature), torch.tensor([expected]))


@pytest.mark.parametrize("temperature", [0.05, 0.5, 10.0])
def test_sharpening_keeps_certainty_and_stays_finite(temperature: float) -> None:
    found = sharpen(torch.tensor([[0.0, 1.0], [0.5, 0.5]]), temperature)
    torch.testing.assert_close(found, torch.tensor([[0.0, 1.0], [0.5, 0.5]]))


@pytest.mark.parametrize("classes", [3, 1000])
@pytest.mark.parametrize("temperature", [1e-4, 0.01, 0.05])
def test_sharpening_of_an_unsure_label_leaves_its_class(temperature: float, classes: int) -> None:
    """However far p ** (1 / temperature) is below the smallest number; a row of zeros stays one."""
    unsure = torch.full((classes,), 0.9 / classes)
    unsure[1] = 1.1 / classes
    found = sharpen(torch.stack([unsure, torch.zeros(classes)]), temperature)
    exact = (unsure.double().log() / temperature).softmax(0).float()
    torch.testing.assert_close(found, torch.stack([exact, torch.zeros(classes)]), rtol=1e-3, atol=1e-6)


LOGITS = torch.tensor([[0.0, 0.0], [0.0, math.log(3)], [0.0, 0.0], [math.log(4), 0.0], [0.0, 0.0], [0.0, math.log(9)]])
TARGETS = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
EACH = [math.log(2), math.log(4 / 3), math.log(2), math.log(5 / 4), math.log(2), math.log(10)]


def test_mean_is_over_all_images() -> None:
    found = noisy_student_loss(LOGITS, TARGETS, 2, "mean")
    torch.testing.assert_close(found, torch.tensor(sum(EACH) / 6))


def test_sum_is_the_labelled_mean_and_ratio_times_the_other_mean() -> None:
    found = noisy_student_loss(LOGITS, TARGETS, 2, "sum")
    torch.testing.assert_close(found, torch.tensor(sum(EACH[:2]) / 2 + 2 * sum(EACH[2:]) / 4))


def test_both_kinds_agree_where_all_images_are_labelled() -> None:
    one, two = (noisy_student_loss(LOGITS, TARGETS, 6, kind) for kind in ("mean", "sum"))
    torch.testing.assert_close(one, two)
    torch.testing.assert_close(one, F.cross_entropy(LOGITS, TARGETS))


def test_the_loss_of_bfloat16_logits_is_taken_in_float32() -> None:
    found = noisy_student_loss(LOGITS.bfloat16(), TARGETS, 2, "mean")
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.tensor(sum(EACH) / 6), atol=5e-3, rtol=0)
