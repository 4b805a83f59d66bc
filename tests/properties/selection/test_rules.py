import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from support.selection_rows import Case, cases, in_passes

from ray_ns.config import Select
from ray_ns.labels.selection import passes, terms


@st.composite
def terms_of(draw: st.DrawFn, case: Case, rule: str) -> terms.Terms:
    """Terms of ``rule`` with thresholds and quotas of some classes' own."""
    label = st.integers(0, case.classes - 1)
    settings = Select(
        rule=rule,
        threshold=round(case.threshold, 2),  # the grid of the official rule
        thresholds=draw(st.dictionaries(label, st.sampled_from([0.0, 0.05, 0.3, 0.58, 1.0]), max_size=3)),
        per_class=case.k,
        quotas=draw(st.dictionaries(label, st.integers(0, 50), max_size=3)),
    )
    return terms.of_settings(settings, case.classes, case.seed)


@given(st.data(), cases())
def test_thresholds_and_quotas_of_single_classes_hold_exactly(data: st.DataObject, case: Case) -> None:
    asked = data.draw(terms_of(case, "paper"))
    copies, quota = in_passes(case.rows, np.array_split(np.arange(len(case.rows[0])), 3), asked)
    _, labels, confidence = case.rows
    over = confidence >= asked.threshold[labels]
    assert not (copies[~over]).any()
    auto = max(int(over.sum()) // case.classes, 1)
    for label in range(case.classes):
        k = auto if asked.wanted[label] == terms.AUTO else asked.wanted[label]
        mine = over & (labels == label)
        assert copies[mine].sum() == (k if mine.any() else 0) == quota.totals[label]
        assert (copies[mine] > 0).sum() == min(k, mine.sum()) == quota.kept[label]


@given(st.data(), cases(), st.integers(1, 7), st.randoms(use_true_random=False))
def test_the_official_rule_is_the_released_one(data: st.DataObject, case: Case, shards: int, draw: object) -> None:
    asked = data.draw(terms_of(case, "official"))
    order = np.arange(len(case.rows[0]))
    draw.shuffle(order)  # type: ignore[attr-defined]
    copies, quota = in_passes(case.rows, np.array_split(order, shards), asked)
    ids, labels, confidence = case.rows
    over = confidence >= asked.threshold[labels]
    auto = max(int(over.sum()) // case.classes, 1)
    for label in range(case.classes):
        k = int(auto if asked.wanted[label] == terms.AUTO else asked.wanted[label])
        mine = np.flatnonzero(labels == label)
        assert quota.candidates[label] == len(mine)
        lowest = round(100 * float(asked.threshold[label]))
        grid = [np.float32(step / 100) for step in range(100, lowest - 1, -1)]
        cut = next((step for step in grid if (confidence[mine] >= step).sum() >= k), grid[-1])
        kept = mine[confidence[mine] >= cut]
        assert not copies[np.setdiff1d(mine, kept)].any()
        if len(kept):
            ratio = k / len(kept)
            coins = passes.draw(ids[kept], case.seed) / 2**64 <= ratio - int(ratio)
            np.testing.assert_array_equal(copies[kept], int(ratio) + coins if k else 0)
