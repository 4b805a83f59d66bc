"""A pool of which too much cannot be read is refused before anything is trained."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

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
    with pytest.raises(InputError, match=r"data.pool: 50 of 500 sampled images cannot be read"):
        look(config, pool)
