"""Tables of FORMAT 3: one schema for all parts, whatever they hold, and what their files say of themselves."""

import itertools
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ray_ns.labels import files
from ray_ns.labels.schema import from_parquet, label_table

KEEPS = ["hard", "top", "full"]
CLASSES = 12
NAMES = (*(f"class {label}" for label in range(CLASSES - 1)), "größer; \"quoted\", and 'so'")
POOL = ("pool", "0123abcd")


def labels(keep: str, count: int, bad: str = "some") -> pa.Table:
    soft = np.random.default_rng(0).dirichlet(np.ones(CLASSES), count).astype(np.float32).reshape(count, CLASSES)
    reasons = ["truncated" if bad == "all" or (bad == "some" and row % 5 == 2) else None for row in range(count)]
    return label_table(np.arange(count) + (3 << 32), soft, reasons, keep, 4)


def selection(keep: str, count: int) -> pa.Table:
    copies = pa.array(np.ones(count, np.int32))
    return labels(keep, count, "none").drop_columns(["quarantine"]).append_column("copies", copies)


def read(data: bytes) -> pa.Table:
    """As another program."""
    return pq.read_table(pa.BufferReader(data), page_checksum_verification=True)


@pytest.mark.parametrize("names", [None, NAMES], ids=["names unknown", "names known"])
@pytest.mark.parametrize("keep", KEEPS)
def test_all_parts_of_labels_have_one_schema(keep: str, names: tuple[str, ...] | None) -> None:
    tables = [labels(keep, 0), *(labels(keep, 30, bad) for bad in ("none", "some", "all"))]
    found = [pq.ParquetFile(pa.BufferReader(files.to_parquet(it, files.About(names, POOL), {}))) for it in tables]
    for one, other in itertools.pairwise(found):
        assert one.schema.equals(other.schema)  # what is required is part of it
        assert one.schema_arrow.equals(other.schema_arrow, check_metadata=True)
    nullable = {it.name: it.nullable for it in found[0].schema_arrow}
    assert not nullable.pop("image_id")
    assert all(nullable.values())
    assert not any(pa.types.is_null(it.type) for it in found[0].schema_arrow)


@pytest.mark.parametrize("names", [None, NAMES], ids=["names unknown", "names known"])
@pytest.mark.parametrize("keep", KEEPS)
def test_all_parts_of_a_selection_have_one_schema_in_which_all_is_required(
    keep: str, names: tuple[str, ...] | None
) -> None:
    found = [
        pq.ParquetFile(pa.BufferReader(files.to_parquet(selection(keep, count), files.About(names, POOL), {})))
        for count in (0, 30)
    ]
    assert found[0].schema.equals(found[1].schema)
    assert found[0].schema_arrow.equals(found[1].schema_arrow, check_metadata=True)
    assert not any(it.nullable for it in found[0].schema_arrow)


def test_the_name_of_a_class_stands_beside_its_number() -> None:
    table = read(files.to_parquet(labels("top", 200), files.About(NAMES, POOL), {}))
    assert table.column_names[:4] == ["image_id", "label", "label_name", "confidence"]
    assert table.schema.field("label_name").type == pa.string()
    rows = table.to_pylist()
    assert any(row["label"] is None for row in rows)
    assert {row["label"] for row in rows} >= {0, CLASSES - 1}
    for row in rows:
        assert row["label_name"] == (None if row["label"] is None else NAMES[row["label"]])
    assert "label_name" not in read(files.to_parquet(labels("top", 9), files.About(None, POOL), {})).column_names


def test_a_table_that_was_read_is_written_with_the_names_of_what_it_then_holds() -> None:
    about = files.About(NAMES, POOL)
    again = from_parquet(files.to_parquet(labels("hard", 30, "none"), about, {}), "key")
    again = again.set_column(1, "label", pa.array(np.full(30, 7, np.int16)))
    assert set(read(files.to_parquet(again, about, {}))["label_name"].to_pylist()) == {NAMES[7]}


def test_the_file_says_what_its_rows_are_of() -> None:
    about = files.About(NAMES, POOL)
    table = from_parquet(files.to_parquet(labels("hard", 9), about, {"teacher": "abc"}), "key")
    found = {name.decode(): value.decode() for name, value in table.schema.metadata.items()}
    assert found.keys() == {"classes", "corpus", "image_id", "teacher"}
    assert json.loads(found["classes"]) == list(NAMES)
    assert json.loads(found["corpus"]) == {"name": "pool", "shards": "0123abcd"}
    assert files.About.of(table) == about
    assert files.About.of(table.filter(table["label"].is_valid()).take([0])) == about
    assert files.About.of(labels("hard", 9)) is None


def test_lists_are_lists_for_others() -> None:
    table = labels("top", 50)
    found = read(files.to_parquet(table, files.About(NAMES, POOL), {}))
    assert found["top_label"].to_pylist() == table["top_label"].to_pylist()
    assert found["top_probability"].to_pylist() == table["top_probability"].to_pylist()
    assert {len(row) for row in found["top_label"].to_pylist() if row} == {4}
