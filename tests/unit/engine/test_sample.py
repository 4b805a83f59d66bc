"""A pool of which too much cannot be read is refused before anything is trained."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_ns.config import Config
from ray_ns.corpora.corpus import Corpus
from ray_ns.engine import sample
from ray_ns.errors import InputError


def look(config: Config, pool: Corpus) -> None:
    sample.check_pool(cast(Any, SimpleNamespace(config=config, corpora={"pool": pool})))


@pytest.mark.parametrize(("shards", "bad", "refused"), [(2, 3, True), (2, 1, False), (40, 0, False)])
def test_a_small_pool_is_looked_at_whole(
    config: Config,
    write_corpus: Callable[..., Corpus],
    pictures: Callable[..., list[bytes]],
    shards: int,
    bad: int,
    refused: bool,
) -> None:
    rows = [pictures(100 // shards + 1) for _ in range(shards)]
    rows[-1][:bad] = [b"no image"] * bad
    pool = write_corpus("pool", rows)
    if not refused:
        look(config, pool)
        return
    with pytest.raises(InputError, match=r"data.pool: 3 of 102 images cannot be read \(not_an_image 3"):
        look(config, pool)


@pytest.mark.parametrize(("every", "refused"), [(10, True), (200, False)])
def test_of_a_large_pool_a_sample_is_looked_at(
    config: Config,
    write_corpus: Callable[..., Corpus],
    pictures: Callable[..., list[bytes]],
    every: int,
    refused: bool,
) -> None:
    good = pictures(1)[0]
    pool = write_corpus(
        "pool", [[b"no image" if (30 * at + row) % every == 5 else good for row in range(30)] for at in range(30)]
    )
    if not refused:
        look(config, pool)
        return
    with pytest.raises(InputError, match=r"data.pool: 5\d of 5\d\d sampled images cannot be read"):
        look(config, pool)


@pytest.mark.parametrize("shards", [1, 4, 60])
def test_images_that_failed_together_do_not_condemn_a_large_pool(
    config: Config, write_corpus: Callable[..., Corpus], pictures: Callable[..., list[bytes]], shards: int
) -> None:
    """30 of 6,000 are broken, half a percent, and stand at the front of one shard; 1 % is allowed."""
    good = pictures(1)[0]
    rows = [[good] * (6000 // shards) for _ in range(shards)]
    rows[0][:30] = [b"no image"] * 30
    look(config, write_corpus("pool", rows))


@pytest.mark.parametrize("shards", [1, 4, 60])
def test_images_that_failed_together_are_too_many_where_they_are(
    config: Config, write_corpus: Callable[..., Corpus], pictures: Callable[..., list[bytes]], shards: int
) -> None:
    """A tenth of the pool, at the end of every shard."""
    good = pictures(1)[0]
    each = 6000 // shards
    pool = write_corpus("pool", [[good] * (each - each // 10) + [b"no image"] * (each // 10) for _ in range(shards)])
    with pytest.raises(InputError, match=r"data.pool: \d+ of \d+ sampled images cannot be read"):
        look(config, pool)


@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=30).filter(any),
    st.integers(1, 500),
    st.integers(1, 25),
    st.floats(0, 0.999),
)
def test_rows_are_spread(group_rows: list[int], images: int, groups: int, phase: float) -> None:
    """Each row is there and comes once, of so many groups at most; a small shard is read whole."""
    found = sample.spread(group_rows, images, groups, phase)
    total = sum(map(len, found.values()))
    for group, rows in found.items():
        assert len(np.unique(rows)) == len(rows) <= group_rows[group]
        assert 0 <= rows.min() <= rows.max() < group_rows[group]
    if sum(group_rows) <= images:
        assert total == sum(group_rows)
    else:
        assert 0 < total < images + len(found)
        assert len(found) <= max(groups, images * len(group_rows) // sum(group_rows) + 1)
