import numpy as np
import pytest
from hypothesis import given
from support.selection_rows import Case, by_shards, by_sorting, cases

from ray_ns.labels.selection import ties


@given(cases())
def test_however_few_edge_rows_are_held_the_selection_is_the_same(case: Case) -> None:
    with pytest.MonkeyPatch().context() as patch:
        patch.setattr(ties, "EDGE_ROWS", 0)
        copies, _ = by_shards(case, np.array_split(np.argsort(case.rows[0]), 4))
    np.testing.assert_array_equal(copies, by_sorting(case))
