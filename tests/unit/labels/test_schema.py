from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash

from ray_ns.errors import IntegrityError
from ray_ns.labels import files
from ray_ns.labels.schema import from_parquet, label_table, soft_targets, to_parquet
from ray_ns.seals import sha256
from ray_ns.store.commit import StoredObject
from ray_ns.store.objects import LocalStore

KEEPS = ["hard", "top", "full"]
CLASSES = 12
ABOUT = files.About(None, ("pool", "0123"))
# How a run of each format writes a table.
WRITTEN: dict[str, Callable[..., bytes]] = {
    "format 2": to_parquet,
    "format 3": lambda table, lineage: files.to_parquet(table, ABOUT, lineage),
}


@pytest.fixture(params=WRITTEN)
def written(request: pytest.FixtureRequest) -> Callable[..., bytes]:
    """``written(table, lineage)``: its file, as each format of a run has it."""
    return WRITTEN[request.param]


def lists(kind: pa.DataType, size: int) -> pa.DataType:
    return pa.list_(pa.field("element", kind, nullable=False), size)


def probabilities(count: int, classes: int = CLASSES, seed: int = 0) -> np.ndarray:
    logits = 3 * np.random.default_rng(seed).normal(size=(count, classes))
    powers = np.exp(logits)
    return (powers / powers.sum(1, keepdims=True)).astype(np.float32)


def table_of(keep: str, count: int = 50, top: int = 4, bad: int = 5) -> pa.Table:
    """Rows of which every ``bad``-th is in quarantine (0: none)."""
    reasons = ["truncated" if bad and i % bad == 2 else None for i in range(count)]
    return label_table(np.arange(count) + (3 << 32), probabilities(count), reasons, keep, top)


@pytest.mark.parametrize("keep", KEEPS)
def test_every_row_has_a_label_or_a_reason_never_both(keep: str) -> None:
    table = table_of(keep)
    labelled = table["label"].is_valid().to_numpy()
    assert table["image_id"].null_count == 0
    np.testing.assert_array_equal(labelled, table["quarantine"].is_null().to_numpy())
    assert labelled.sum() == 40
    for name in set(table.column_names) - {"image_id", "quarantine"}:
        np.testing.assert_array_equal(table[name].is_valid().to_numpy(), labelled, err_msg=name)


@pytest.mark.parametrize("keep", KEEPS)
def test_label_and_confidence_are_the_class_and_probability_of_the_maximum(keep: str) -> None:
    table, truth = table_of(keep, bad=0), probabilities(50)
    np.testing.assert_array_equal(table["label"].to_numpy(), truth.argmax(1))
    np.testing.assert_array_equal(table["confidence"].to_numpy(), truth.max(1))
    assert table.schema.field("label").type == pa.int16()
    assert table.schema.field("confidence").type == pa.float32()


@pytest.mark.parametrize(
    ("keep", "columns"),
    [
        ("hard", {}),
        (
            "top",
            {
                "top_label": lists(pa.int16(), 4),
                "top_probability": lists(pa.float16(), 4),
            },
        ),
        ("full", {"probability": lists(pa.float16(), CLASSES)}),
    ],
)
def test_soft_columns_are_those_kept(keep: str, columns: dict[str, pa.DataType]) -> None:
    found = {field.name: field.type for field in table_of(keep).schema}
    assert list(found)[:4] == ["image_id", "label", "confidence", "quarantine"]
    assert {name: found[name] for name in list(found)[4:]} == columns


@pytest.mark.parametrize("keep", KEEPS)
@pytest.mark.parametrize("bad", [0, 5, 1], ids=["none bad", "some bad", "many bad"])
def test_a_table_comes_back_from_parquet_as_it_went(keep: str, bad: int, written: Callable[..., bytes]) -> None:
    table = table_of(keep, bad=bad)
    back = from_parquet(written(table, {"teacher": "abc"}), "key")
    assert back.equals(table)
    assert back.schema.types == table.schema.types
    assert back.schema.metadata[b"teacher"] == b"abc"


@pytest.mark.parametrize("keep", KEEPS)
def test_an_empty_table_comes_back(keep: str, written: Callable[..., bytes]) -> None:
    table = label_table(np.arange(0), np.zeros((0, CLASSES), np.float32), [], keep, 4)
    assert from_parquet(written(table, {}), "key").equals(table)


@pytest.mark.parametrize("keep", KEEPS)
def test_the_same_table_gives_the_same_bytes(keep: str, written: Callable[..., bytes]) -> None:
    assert written(table_of(keep), {"a": "b"}) == written(table_of(keep), {"a": "b"})


def test_only_the_columns_asked_for_are_read(written: Callable[..., bytes]) -> None:
    data = written(table_of("top"), {})
    assert from_parquet(data, "key", ["label", "image_id"]).column_names == ["label", "image_id"]


@pytest.mark.parametrize("keep", KEEPS)
def test_soft_targets_sum_to_one(keep: str) -> None:
    targets = soft_targets(table_of(keep, bad=0), CLASSES)
    assert targets.shape == (50, CLASSES)
    assert targets.dtype == np.float32
    assert (targets >= 0).all()
    np.testing.assert_allclose(targets.sum(1), 1, atol=1e-6)
    np.testing.assert_array_equal(targets.argmax(1), probabilities(50).argmax(1))


@pytest.mark.parametrize("keep", ["top", "full"])
def test_soft_targets_of_all_classes_are_the_softmax_within_float16(keep: str) -> None:
    targets = soft_targets(table_of(keep, top=CLASSES, bad=0), CLASSES)
    np.testing.assert_allclose(targets, probabilities(50), rtol=2e-3, atol=1e-6)


def test_soft_targets_spread_what_was_cut_off_over_the_rest() -> None:
    table = label_table(np.arange(1), np.array([[0.5, 0.25, 0.125, 0.0625, 0.0625]], np.float32), [None], "top", 2)
    expected = [[0.5, 0.25, 0.25 / 3, 0.25 / 3, 0.25 / 3]]
    np.testing.assert_allclose(soft_targets(table, 5), expected, atol=1e-6)


def test_soft_targets_of_a_hard_table_are_one_hot() -> None:
    expected = np.eye(CLASSES, dtype=np.float32)[probabilities(50).argmax(1)]
    np.testing.assert_array_equal(soft_targets(table_of("hard", bad=0), CLASSES), expected)


@pytest.mark.parametrize("keep", KEEPS)
def test_soft_targets_survive_parquet_filter_and_take(keep: str, written: Callable[..., bytes]) -> None:
    table = from_parquet(written(table_of(keep), {}), "key")
    valid = table.filter(table["label"].is_valid())
    taken = pa.concat_tables([valid.slice(30), valid.slice(0, 30)]).take(pa.array([35, 0]))
    expected = soft_targets(
        table_of(keep, bad=0).take(taken["image_id"].cast(pa.int64()).to_numpy() - (3 << 32)), CLASSES
    )
    np.testing.assert_array_equal(soft_targets(taken, CLASSES), expected)


def read_elsewhere(data: bytes) -> pa.Table:
    """As a reader that knows nothing of commits."""
    return pq.read_table(pa.BufferReader(data), page_checksum_verification=True)


@pytest.mark.parametrize("keep", KEEPS)
def test_a_flipped_bit_in_the_pages_is_caught_by_any_reader(
    keep: str, written: Callable[..., bytes], record_property: Callable[[str, object], None]
) -> None:
    data = written(table_of(keep, 2000), {"teacher": "abc"})
    table = read_elsewhere(data)
    pages_end = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    rng = np.random.default_rng(0)
    caught = 0
    for offset in rng.integers(4, pages_end, 150):
        hurt = bytearray(data)
        hurt[offset] ^= 1 << int(rng.integers(8))
        try:
            assert read_elsewhere(bytes(hurt)).equals(table), f"bit flipped at {offset}"
        except (OSError, pa.ArrowException):
            caught += 1
    record_property("caught", f"{caught} of 150")
    assert caught >= 130  # the others lie in fields of page headers that nobody reads


@pytest.mark.parametrize("check", ["sha256", "xxh3"])
@pytest.mark.parametrize("keep", KEEPS)
def test_a_flipped_bit_anywhere_in_a_stored_label_shard_is_caught(
    keep: str, check: str, tmp_path: Path, written: Callable[..., bytes]
) -> None:
    # Footers and the headers of pages have no checksum of their own, so readers check the whole.
    data = written(table_of(keep, 600), {"teacher": "abc"})
    store = LocalStore(tmp_path)
    stored = StoredObject("labels.parquet", sha256(data), len(data))
    xxh3 = xxhash.xxh3_64_hexdigest(data) if check == "xxh3" else None
    rng = np.random.default_rng(0)
    for offset, bit in zip(rng.integers(0, len(data), 150).tolist(), rng.integers(0, 8, 150).tolist(), strict=True):
        hurt = bytearray(data)
        hurt[offset] ^= 1 << bit
        store.put("labels.parquet", bytes(hurt))
        with pytest.raises(IntegrityError, match=r"labels\.parquet"):
            stored.read(store, xxh3)
    store.put("labels.parquet", data)
    assert stored.read(store, xxh3) == data


@pytest.mark.parametrize("keep", KEEPS)
def test_tables_with_and_without_quarantine_fit_together(keep: str, written: Callable[..., bytes]) -> None:
    tables = [from_parquet(written(table_of(keep, bad=bad), {}), "key") for bad in (0, 5)]
    assert tables[0].schema.equals(tables[1].schema)
    assert pa.concat_tables(tables).num_rows == 100


@pytest.mark.parametrize("data", [b"", b"hello", b"PAR1PAR1", to_parquet(table_of("top"), {})[:-30]])
def test_bytes_that_are_no_table_are_refused_by_name(data: bytes) -> None:
    with pytest.raises(IntegrityError, match="labels/7"):
        from_parquet(data, "labels/7")


def test_pages_of_every_column_have_checksums(written: Callable[..., bytes]) -> None:
    data = written(table_of("top", 2000), {})
    file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
    group = file.metadata.row_group(0)
    for number in range(group.num_columns):
        column = group.column(number)
        begin = column.dictionary_page_offset or column.data_page_offset
        hurt = bytearray(data)
        hurt[begin + column.total_compressed_size - 1] ^= 1
        with pytest.raises(OSError, match="CRC"):
            read_elsewhere(bytes(hurt))


@pytest.mark.parametrize(("keep", "most"), [("hard", 12), ("top", 50)])
def test_a_row_takes_few_bytes(keep: str, most: float, written: Callable[..., bytes]) -> None:
    count = 100_000
    rng = np.random.default_rng(0)
    sharpness = rng.uniform(0.2, 5, (count, 1))
    powers = np.exp(sharpness * rng.normal(size=(count, 20)))
    soft = (powers / powers.sum(1, keepdims=True)).astype(np.float32)
    reasons = [None if draw > 0.001 else "truncated" for draw in rng.random(count)]
    data = written(label_table(np.arange(count), soft, reasons, keep, 10), {"teacher": "0" * 64})
    assert len(data) / count <= most
