"""Label shards of a pool, slices of a shard, and tables put together from slices in any order."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest

from ray_ns.artifacts.selection import SELECTION
from ray_ns.config import Config
from ray_ns.corpora.corpus import Corpus, image_ids
from ray_ns.engine.predict import assembled, predict
from ray_ns.engine.stages.label import label_shards
from ray_ns.engine.workers.slices import Job, Piece, Reader, Slice, cut, list_slices
from ray_ns.engine.workers.teacher import TABLE
from ray_ns.images.decode import Decode
from ray_ns.labels.schema import to_parquet
from ray_ns.store.commit import Output
from ray_ns.store.objects import LocalStore


def slices_of(corpus: Corpus, piece: Piece, slice_rows: int) -> list[Slice]:
    return cut("pool", piece, corpus.open(piece.shard).group_rows, slice_rows)


@pytest.mark.parametrize("slice_rows", [1, 2, 3, 4, 100])
@pytest.mark.parametrize("parts", [1, 2, 3, 5])
def test_slices_cover_every_row_once_and_never_cross_a_row_group(
    write_corpus: Callable[..., Corpus], slice_rows: int, parts: int
) -> None:
    corpus = write_corpus("pool", [[b"x"] * 10], group=4)
    covered = []
    for part in range(parts):
        slices = slices_of(corpus, Piece(corpus.shards[0], part, parts), slice_rows)
        assert [it.number for it in slices] == list(range(slices[0].count))
        for it in slices:
            assert it.rows <= slice_rows
            assert it.begin + it.rows <= [4, 4, 2][it.group]
            covered += [it.first + it.begin + i for i in range(it.rows)]
    assert covered == list(range(10))


def test_a_shard_without_rows_has_one_empty_slice(write_corpus: Callable[..., Corpus]) -> None:
    corpus = write_corpus("pool", [[]])
    (only,) = slices_of(corpus, Piece(corpus.shards[0]), 8)
    assert only.rows == 0
    assert only.count == 1


@pytest.mark.parametrize("slice_rows", [1, 3, 100])
def test_a_selection_restricts_the_slices_to_its_rows(
    write_corpus: Callable[..., Corpus], tmp_path: Path, slice_rows: int
) -> None:
    corpus = write_corpus("pool", [[b"x"] * 10, [b"y"] * 10], group=4)
    shard = corpus.shards[1]
    rows = [0, 3, 4, 5, 6, 7, 9]
    ids = np.concatenate([image_ids(0, np.arange(10)), image_ids(shard.ordinal, np.array(rows))])
    store = LocalStore(tmp_path / "run")
    stage = Output(store, "select", lambda: None)
    parts = [
        stage.put(number, {SELECTION: to_parquet(pa.table({"image_id": pa.array(some)}), {})}, {})
        for number, some in enumerate((np.delete(ids, [3, 12]), ids[[3, 12]]))
    ]
    jobs = [Job("pool", ()), Job("pool", (Piece(shard),), tuple(part.objects[SELECTION] for part in parts))]
    slices = [Slice.of_row(it) for it in list_slices({"job": 1, "piece": 0}, jobs, {"pool": corpus}, slice_rows, store)]
    assert {(it.job, it.piece) for it in slices} == {(1, 0)}
    assert [int(it.first + at) for it in slices for at in it.in_group] == rows
    assert all(len(it.in_group) == it.rows <= slice_rows for it in slices)


@pytest.mark.parametrize("at", [None, b"", np.arange(3).tobytes()])
def test_a_slice_comes_out_of_rows_and_batches_of_ray_data_as_it_went_in(at: bytes | None) -> None:
    one = Slice("pool", 3, 1, 40, 8, 3, at, job=2, piece=1, number=4, count=5)
    assert Slice.of_row({**one.as_row(), TABLE: b"other things"}) == one
    batch = {
        name: np.array([value], object if isinstance(value, bytes) else None) for name, value in one.as_row().items()
    }
    assert Slice.of_batch(batch) == one
    assert {type(value) for value in vars(Slice.of_batch(batch)).values()} <= {int, str, bytes, type(None)}


@pytest.mark.parametrize("rows", [1, 4, 10, 25, 1000])
def test_label_shards_hold_every_image_once_in_order_and_about_as_many_as_asked(
    write_corpus: Callable[..., Corpus], rows: int
) -> None:
    sizes = [10, 10, 3, 40, 10, 0, 10]
    corpus = write_corpus("pool", [[bytes(1000)] * size for size in sizes], group=4)
    jobs = label_shards(corpus, rows)
    found = [
        (it.first + it.begin + i, piece.shard.ordinal)
        for job in jobs
        for piece in job.pieces
        for it in slices_of(corpus, piece, 100)
        for i in range(it.rows)
    ]
    assert found == [(row, shard) for shard, size in enumerate(sizes) for row in range(size)]
    held = [sum(it.rows for piece in job.pieces for it in slices_of(corpus, piece, 100)) for job in jobs]
    assert max(held) <= 2 * max(rows, 4) + 4


def test_label_shards_that_stood_stand_when_the_pool_grows_behind_them(write_corpus: Callable[..., Corpus]) -> None:
    corpus = write_corpus("pool", [[bytes(1000)] * 10] * 7)
    some = Corpus(corpus.root, "image", None, corpus.shards[:5])
    assert label_shards(corpus, 20)[:2] == label_shards(some, 20)[:2]


def rows_of(pieces: list[int], slices: int) -> list[dict[str, Any]]:
    rows = []
    for job, many in enumerate(pieces):
        for piece in range(many):
            for at in range(slices):
                table = pa.table({"image_id": pa.array([1000 * job + 100 * piece + at])})
                sink = pa.BufferOutputStream()
                with pa.ipc.new_stream(sink, table.schema) as writer:
                    writer.write_table(table)
                slice_ = Slice("pool", 0, 0, 0, 0, 1, None, job, piece, at, slices)
                rows.append({**slice_.as_row(), TABLE: sink.getvalue().to_pybytes()})
    return rows


@pytest.mark.parametrize("seed", range(5))
def test_slices_in_any_order_give_whole_jobs_in_row_order(seed: int) -> None:
    pieces = [1, 3, 2]
    rows = rows_of(pieces, 4)
    np.random.default_rng(seed).shuffle(rows)
    found = dict(assembled(rows, pieces))
    assert sorted(found) == [0, 1, 2]
    for job, table in found.items():
        expected = [1000 * job + 100 * piece + at for piece in range(pieces[job]) for at in range(4)]
        assert table["image_id"].to_pylist() == expected


def test_a_slice_that_comes_twice_counts_once() -> None:
    rows = rows_of([1], 3)
    ((_, table),) = assembled([rows[0], rows[1], rows[0], rows[2], rows[2]], [1])
    assert table.num_rows == 3


def test_a_missing_slice_is_never_passed_over() -> None:
    with pytest.raises(AssertionError, match="without 1 of 2 jobs"):
        list(assembled(rows_of([1, 1], 3)[:-1], [1, 1]))


def test_jobs_are_values_so_that_they_can_be_looked_up() -> None:
    from ray_ns.corpora.corpus import Shard

    shard = Shard(0, "a", 1, 2)
    assert {Job("pool", (Piece(shard),)): 1}[Job("pool", (Piece(shard),))] == 1


@pytest.mark.parametrize("changes", [{"size": 24}, {"interpolation": "bicubic"}, {"fit": "crop"}], ids=str)
def test_a_reader_of_a_process_does_not_outlive_how_its_network_is_fed(config: Config, changes: dict[str, Any]) -> None:
    first = Reader.of_process(config)
    assert Reader.of_process(config) is first
    changed = config.data.read_as(**changes)
    assert Reader.of_process(config.reading(changed)) is not first
    assert Reader.of_process(config.reading(changed))._decoder == Decode.of(changed)


@pytest.mark.parametrize(("open_shards", "actors", "most"), [(3, 1, 3), (1, 2, 4), (64, 1, 10)])
def test_no_more_shards_are_open_than_a_crash_may_cost(
    config: Config, open_shards: int, actors: int, most: int
) -> None:
    opened: list[list[int]] = []

    def execute(run: Any, teacher: Any, jobs: Any, known: Any) -> Iterator[Any]:
        opened.append(jobs)
        yield from ((job, pa.table({"confidence": pa.array([0.5])})) for job in jobs)

    label = config.label.model_copy(update={"open_shards": open_shards, "actors": actors})
    run = SimpleNamespace(config=config.model_copy(update={"label": label}), execute=execute, called={})
    jobs = [Job(f"corpus {number}", ()) for number in range(10)]
    assert [job for job, _ in predict(cast(Any, run), [], jobs)] == jobs
    assert max(map(len, opened)) == most
