"""How often, and beside which others, each image of a corpus comes."""

import gc
import pickle
import tracemalloc
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest

from ray_ns.corpora.corpus import Corpus, image_ids
from ray_ns.train.visits import visits_of


def all_ids(sizes: list[int]) -> np.ndarray:
    return np.concatenate([image_ids(ordinal, np.arange(size)) for ordinal, size in enumerate(sizes)])


@pytest.fixture
def pool(write_corpus: Callable[..., Corpus], pictures: Callable[..., list[bytes]]) -> Corpus:
    """20 images in three shards and seven row groups."""
    images = pictures(20, seed=1)
    return write_corpus("pool", [images[:9], images[9:10], images[10:]])


def test_copies_are_spread_over_visits_never_within_one(pool: Corpus) -> None:
    rng = np.random.default_rng(0)
    ids = all_ids([9, 1, 10])
    for _ in range(20):
        copies = rng.integers(0, 5, 20) * (rng.random(20) < 0.7)
        used = copies > 0
        visits = visits_of(pool, ids[used], copies[used])
        seen: Counter[int] = Counter()
        for visit in visits:
            first = sum(pool.open(visit.shard).group_rows[: visit.group])
            found = image_ids(visit.shard.ordinal, visit.rows + first)
            assert len(set(found.tolist())) == len(found) > 0
            np.testing.assert_array_equal(ids[used][visit.targets], found)
            seen.update(found.tolist())
        assert seen == {int(one): int(many) for one, many in zip(ids, copies, strict=True) if many}


def test_visits_lie_within_their_row_group(pool: Corpus) -> None:
    visits = visits_of(pool, all_ids([9, 1, 10]), np.ones(20, int))
    sizes = [(visit.shard.ordinal, visit.group, len(visit.rows)) for visit in visits]
    assert sizes == [(0, 0, 4), (0, 1, 4), (0, 2, 1), (1, 0, 1), (2, 0, 4), (2, 1, 4), (2, 2, 2)]


def test_shards_and_groups_without_a_chosen_image_have_no_visit(pool: Corpus) -> None:
    visits = visits_of(pool, np.array([image_ids(2, np.array([5]))[0]]), np.array([2]))
    assert [(visit.shard.ordinal, visit.group, visit.rows.tolist()) for visit in visits] == [(2, 1, [1])] * 2


def test_a_visit_costs_no_more_than_its_numbers(pool: Corpus) -> None:
    # A selection of 130 million has five million visits; as objects they took half a kilobyte each, in every process.
    groups, ids = [5] * 20_000, image_ids(0, np.arange(0, 100_000, 5))
    wide = SimpleNamespace(shards=pool.shards[:1], open=lambda shard: SimpleNamespace(group_rows=groups))
    gc.collect()
    tracemalloc.start()
    visits = visits_of(wide, ids, np.ones(len(ids), np.int16))  # type: ignore[arg-type]
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (len(visits), visits.images) == (20_000, 20_000)
    assert held < 50 * len(visits)
    assert visits[19_999].rows.tolist() == [0]


def test_visits_can_travel(pool: Corpus) -> None:
    visits = visits_of(pool, all_ids([9, 1, 10]), np.ones(20, int))
    back = pickle.loads(pickle.dumps(visits))
    assert [visit.shard for visit in back] == [visit.shard for visit in visits]
