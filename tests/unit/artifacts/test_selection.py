from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pytest

from ray_ns.artifacts.selection import ENDS, SELECTION, ends_of, tables
from ray_ns.errors import IntegrityError
from ray_ns.labels import files, schema
from ray_ns.store.commit import Output, Part
from ray_ns.store.objects import LocalStore
from ray_ns.train.selected import Selected

CLASSES = 6
Made = Callable[..., tuple[LocalStore, list[Part], pa.Table]]


@pytest.fixture
def made(tmp_path: object) -> Made:
    """A selection of some parts, and all of it as one table by id."""

    def selection(
        keep: str, counts: Sequence[int] = (5, 0, 3), copies: int = 4, backwards: bool = False, format: int = 3
    ) -> tuple[LocalStore, list[Part], pa.Table]:
        store = LocalStore(str(tmp_path))
        rng = np.random.default_rng(1)
        tables = []
        for number, count in enumerate(counts):
            ids = (np.int64(number) << 32) + np.sort(rng.permutation(50)[:count])
            probabilities = rng.dirichlet(np.ones(CLASSES), count).astype(np.float32)
            table = schema.label_table(ids, probabilities.reshape(count, CLASSES), [None] * count, keep, 3)
            tables.append(table.append_column("copies", pa.array(rng.integers(1, copies + 1, count).astype(np.int32))))
        stage = Output(store, "select", lambda: None)
        own, edges = [], []
        for number, table in enumerate(reversed(tables) if backwards else tables):
            at_edge = rng.random(table.num_rows) < 0.4
            own.append(table.filter(pa.array(~at_edge)))
            part = pa.array(np.full(np.count_nonzero(at_edge), number, np.int32))
            edges.append(table.filter(pa.array(at_edge)).append_column("part", part))
        last, facts = pa.concat_tables(edges), {}
        if format == 3:
            facts = {ENDS: ends_of(last["part"].to_numpy(), len(counts))}
            last = last.drop_columns(["part"])
        about = files.About(tuple("abcdef"), ("pool", "0123"))
        write = schema.to_parquet if format < 3 else lambda table, lineage: files.to_parquet(table, about, lineage)
        parts = [
            stage.put(number, {SELECTION: write(table, {})}, facts if number == len(own) else {})
            for number, table in enumerate([*own, last])
        ]
        return store, parts, pa.concat_tables(tables).combine_chunks()

    return selection


@pytest.mark.parametrize("format", [2, 3])
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("keep", ["hard", "top", "full"])
def test_it_holds_what_the_parts_hold_by_id(made: Made, keep: str, backwards: bool, format: int) -> None:
    store, parts, table = made(keep, backwards=backwards, format=format)
    selected = Selected(tables(store, parts, soft=True))
    np.testing.assert_array_equal(selected.ids, table["image_id"].to_numpy())
    np.testing.assert_array_equal(selected.labels, table["label"].to_numpy())
    np.testing.assert_array_equal(selected.copies, table["copies"].to_numpy())
    rows = np.array([6, 0, 3, 3, 7])
    np.testing.assert_array_equal(
        selected.soft(rows, CLASSES), schema.soft_targets(table.take(pa.array(rows)), CLASSES)
    )


def test_an_image_takes_twelve_bytes_of_memory(made: Made) -> None:
    store, parts, table = made("full", (40, 40))
    selected = Selected(tables(store, parts, soft=True))
    held = selected.ids.nbytes + selected.labels.nbytes + selected.copies.nbytes
    assert held == 12 * table.num_rows
    assert all(isinstance(column, np.memmap) for column in selected._soft.values())


def test_many_copies_are_not_cut(made: Made) -> None:
    store, parts, table = made("hard", (30, 30), copies=200_000)
    assert table["copies"].to_numpy().max() > 2**16
    np.testing.assert_array_equal(Selected(tables(store, parts, soft=False)).copies, table["copies"].to_numpy())


def test_rot_is_found_while_it_is_read(made: Made) -> None:
    store, parts, _ = made("top")
    path = store.path(parts[0].objects[SELECTION].key)
    data = bytearray(path.read_bytes())
    data[60] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match="does not match its hash"):
        Selected(tables(store, parts, soft=True))
