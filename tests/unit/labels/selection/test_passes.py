import numpy as np
import pytest
from support.selection_rows import chosen

from ray_ns.config import Select
from ray_ns.labels.selection import passes, terms


def test_the_most_confident_of_each_class_are_kept() -> None:
    copies, quota = chosen([0, 0, 0, 1, 1, 1], [0.5, 0.9, 0.7, 0.6, 0.4, 0.8], 2, 0.0, 2)
    assert copies == [0, 1, 1, 1, 0, 1]
    assert quota.kept.tolist() == quota.totals.tolist() == [2, 2]


def test_of_equally_confident_ones_the_lowest_id_is_kept() -> None:
    assert chosen([0] * 5, [0.5] * 5, 1, 0.0, 2)[0] == [1, 1, 0, 0, 0]


def test_confidences_that_differ_in_the_last_bit_are_told_apart() -> None:
    half = np.float32(0.5)
    above, far = np.nextafter(half, np.float32(1)), np.nextafter(half, np.float32(0))
    assert chosen([0] * 4, [far, half, above, half], 1, 0.0, 2)[0] == [0, 1, 1, 0]


def test_which_images_get_one_copy_more_depends_on_the_seed() -> None:
    ids = np.arange(50)
    assert not np.array_equal(np.argsort(passes.draw(ids, 0)), np.argsort(passes.draw(ids, 1)))


@pytest.mark.parametrize("wrong", [np.nan, -0.1, 1.1, np.inf, -np.inf])
def test_a_confidence_that_is_none_is_refused_with_its_row(wrong: float) -> None:
    rows = np.zeros(3, np.int16), np.array([0.5, wrong, 0.5], np.float32)
    with pytest.raises(ValueError, match=r"in row 1; expected 0\.\.1"):
        passes.Tally(terms.of_settings(Select(), 1, 0)).add(*rows)


@pytest.mark.parametrize("edge", [0.0, 1.0])
def test_confidences_of_zero_and_one_are_counted(edge: float) -> None:
    assert chosen([0], [edge], 1, 0.0, 1)[0] == [1]


@pytest.mark.parametrize("label", [-1, 2])
def test_a_label_that_is_no_class_is_refused_with_its_row(label: int) -> None:
    rows = np.array([0, label, 1], np.int16), np.full(3, 0.5, np.float32)
    with pytest.raises(ValueError, match=r"in row 1; expected 0\.\.1"):
        passes.Tally(terms.of_settings(Select(), 2, 0)).add(*rows)
