import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ray_ns.config import Select
from ray_ns.labels.selection import bins, terms


@given(st.lists(st.floats(0, 1, width=32), min_size=2, max_size=200))
def test_bins_never_rise_with_the_confidence(values: list[float]) -> None:
    ordered = np.sort(np.array(values, np.float32))
    for rule in ("paper", "official"):
        asked = terms.of_settings(Select(rule=rule), 1, 0)
        found = bins.bins_of(np.zeros(len(ordered), np.int64), ordered, asked)
        assert (np.diff(found) <= 0).all()
        assert found.min() >= 0
        assert found.max() < bins.BINS[rule]


def test_bins_end_at_every_step_of_the_grid_and_their_floors_are_exact() -> None:
    near = (terms.GRID.view(np.int32)[:, None] + np.arange(-3, 4)).clip(0, bins.ONE).astype(np.int32)
    spread = np.random.default_rng(0).integers(0, bins.ONE + 1, 100_000).astype(np.int32)
    values = np.sort(np.concatenate([near.ravel(), spread])).view(np.float32)
    np.testing.assert_array_equal(bins.steps_above(values), 101 - terms.GRID.searchsorted(values, "right"))
    found = bins.without_thresholds(values)
    assert (np.diff(found)[np.diff(bins.steps_above(values)) < 0] < 0).all()
    floors = bins.floors()
    assert (floors[found] <= values).all()
    assert (values < np.append(np.float32(2), floors)[found]).all()
