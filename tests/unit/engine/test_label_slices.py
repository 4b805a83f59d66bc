"""Slices of a shard, and shards put together from slices in any order."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ray_ns.engine.label import ShardLabels, _assembled, list_slices
from ray_ns.images.corpus import Corpus


@pytest.mark.parametrize("slice_rows", [1, 2, 3, 4, 100])
def test_slices_cover_every_row_once_and_never_cross_a_row_group(
    write_corpus: Callable[..., Corpus], slice_rows: int
) -> None:
    corpus = write_corpus("pool", [[b"x"] * 10], group=4)
    row = {"corpus": "pool", "shard": vars(corpus.shards[0])}
    slices = list_slices(row, {"pool": corpus}, slice_rows)
    covered = [it["first_row"] + i for it in slices for i in range(it["rows"])]
    assert covered == list(range(10))
    for it in slices:
        assert 0 < it["rows"] <= slice_rows
        assert it["begin"] + it["rows"] <= it["group_rows"][it["group"]]
    assert [it["slice"] for it in slices] == list(range(slices[0]["slices"]))


def test_a_shard_without_rows_has_one_empty_slice(write_corpus: Callable[..., Corpus]) -> None:
    corpus = write_corpus("pool", [[]])
    (only,) = list_slices({"corpus": "pool", "shard": vars(corpus.shards[0])}, {"pool": corpus}, 8)
    assert only["rows"] == 0
    assert only["slices"] == 1


def rows_of(corpus: Corpus, slices: int) -> list[dict[str, Any]]:
    rows = []
    for shard in corpus.shards:
        for i in range(slices):
            table = pa.table({"image_id": pa.array([100 * shard.ordinal + i])})
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table)
            rows.append(
                {"corpus": "pool", "shard": vars(shard), "slice": i, "slices": slices, "group_rows": np.array([slices])}
                | {"table": sink.getvalue().to_pybytes()}
            )
    return rows


@pytest.mark.parametrize("seed", range(5))
def test_slices_in_any_order_give_whole_shards_in_row_order(write_corpus: Callable[..., Corpus], seed: int) -> None:
    corpus = write_corpus("pool", [[b"x"], [b"y"], [b"z"]])
    rows = rows_of(corpus, 4)
    np.random.default_rng(seed).shuffle(rows)
    found: list[ShardLabels] = list(_assembled(rows, [("pool", shard) for shard in corpus.shards]))
    assert sorted(it.shard.ordinal for it in found) == [0, 1, 2]
    for it in found:
        assert it.table["image_id"].to_pylist() == [100 * it.shard.ordinal + i for i in range(4)]


def test_a_slice_that_comes_twice_counts_once(write_corpus: Callable[..., Corpus]) -> None:
    corpus = write_corpus("pool", [[b"x"]])
    rows = rows_of(corpus, 3)
    (found,) = _assembled([rows[0], rows[1], rows[0], rows[2]], [("pool", corpus.shards[0])])
    assert found.table.num_rows == 3


def test_a_missing_slice_is_never_passed_over(write_corpus: Callable[..., Corpus]) -> None:
    corpus = write_corpus("pool", [[b"x"]])
    with pytest.raises(AssertionError, match="without 1 of 1 shards"):
        list(_assembled(rows_of(corpus, 3)[:2], [("pool", corpus.shards[0])]))
