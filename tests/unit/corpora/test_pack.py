"""Packed shards: row groups, order, one-time resize, and which files of a folder are shards."""

import io
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ray_ns.corpora import pack
from ray_ns.corpora.corpus import Corpus
from ray_ns.errors import InputError, IntegrityError
from ray_ns.images.decode import Reason
from ray_ns.seals import seal, unseal


def row(image: bytes, number: int, **more: Any) -> dict[str, Any]:
    return {"image": image, "sha256": bytes(32), "source": f"a row {number}", **more}


def packed(sizes: list[int], labelled: bool = False) -> bytes:
    packer = pack.Packer(pack.schema(labelled))
    for number, size in enumerate(sizes):
        packer.add(row(bytes(size), number, **({"label": number % 3} if labelled else {})))
    assert (packer.rows, packer.size) == (len(sizes), sum(sizes))
    return packer.bytes()


@pytest.mark.parametrize(
    ("sizes", "groups"),
    [
        ([100] * 600, [256, 256, 88]),
        ([3 << 20] * 7, [3, 3, 1]),
        ([20 << 20, 10, 10], [1, 2]),
        ([10], [1]),
    ],
)
def test_row_groups_are_small_in_rows_and_in_bytes(sizes: list[int], groups: list[int]) -> None:
    meta = pq.ParquetFile(io.BytesIO(packed(sizes))).metadata
    assert [meta.row_group(at).num_rows for at in range(meta.num_row_groups)] == groups
    assert meta.row_group(0).column(0).compression == "UNCOMPRESSED"


def test_rows_stay_in_order_with_their_labels_and_equal_rows_make_equal_bytes() -> None:
    table = pq.read_table(io.BytesIO(packed(list(range(1, 300)), labelled=True)))
    assert table.column_names == ["image", "label", "sha256", "source", "image_size", "image_crc32"]
    assert [len(it) for it in table["image"].to_pylist()] == list(range(1, 300))
    assert table["label"].to_pylist() == [it % 3 for it in range(299)]
    assert table["image_size"].to_pylist() == list(range(1, 300))
    assert table["image_crc32"].to_pylist() == [zlib.crc32(bytes(it)) for it in range(1, 300)]
    assert packed([5, 6]) == packed([5, 6])


def test_a_smaller_image_keeps_its_bytes_and_a_larger_one_its_shape(encode: Callable[..., bytes]) -> None:
    rng = np.random.default_rng(0)
    wide = encode(rng.integers(0, 256, (100, 300, 3)).astype(np.uint8), "JPEG")
    assert pack.resized(wide, 100) is wide
    small = Image.open(io.BytesIO(pack.resized(wide, 40)))
    assert (small.format, small.size, small.mode) == ("JPEG", (120, 40), "RGB")
    tall = Image.open(io.BytesIO(pack.resized(encode(rng.integers(0, 256, (300, 100)).astype(np.uint8)), 40)))
    assert (tall.size, tall.mode) == ((40, 120), "L")


def test_transparency_goes_on_white(encode: Callable[..., bytes]) -> None:
    clear = encode(np.zeros((64, 64, 4), np.uint8))
    pixels = np.asarray(Image.open(io.BytesIO(pack.resized(clear, 16))))
    assert pixels.shape == (16, 16, 3)
    assert pixels.min() > 250


def test_what_cannot_be_resized_is_a_reason(encode: Callable[..., bytes]) -> None:
    whole = encode(np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8))
    assert pack.resized(whole[: len(whole) // 2], 16) is Reason.TRUNCATED


Commit = dict[str, Any]


def commit_of(folder: Path, number: str, change: Callable[[Commit], Any] = lambda _: None) -> bytes:
    """The sealed commit of that generation, changed before it was sealed."""
    path = folder / f"ingest-{number}/commit.json"
    value = unseal(path.read_bytes(), str(path))
    change(value)
    return seal(value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A packed folder with two committed shards of two generations, and one that no commit names."""
    for name in ("corpora-1.json", "hashes-0001/plan.json", "ingest-0001/plan.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    for number, parts in {"0001": ["x", "orphan"], "0002": ["y"]}.items():
        stored = []
        for part in parts:
            key = f"ingest-{number}/data/{part}/{pack.IMAGES}"
            (tmp_path / key).parent.mkdir(parents=True)
            (tmp_path / key).write_bytes(packed([4, 5]))
            stored.append({"objects": {pack.IMAGES: {"key": key, "sha256": "", "size": len(packed([4, 5]))}}})
        commit = {"stage": f"ingest-{number}", "inputs": "", "parts": [*stored[:1], {"objects": {}}], "summary": {}}
        (tmp_path / f"ingest-{number}/commit.json").write_bytes(seal(commit))
    return tmp_path


def scan(folder: Path) -> list[str]:
    return [shard.path for shard in Corpus.scan(str(folder), "image", None).shards]


def test_a_packed_folder_holds_what_its_commits_name(folder: Path) -> None:
    first, second = (f"ingest-{number}/data/{part}/images.parquet" for number, part in (("0001", "x"), ("0002", "y")))
    assert scan(folder) == [first, second]
    (folder / "ingest-0002/commit.json").unlink()
    assert scan(folder) == [first]
    (folder / "ingest-0001/commit.json").unlink()
    with pytest.raises(InputError, match="not finished"):
        scan(folder)


def test_an_earlier_commit_that_is_gone_is_missed(folder: Path) -> None:
    (folder / "ingest-0001/commit.json").unlink()
    with pytest.raises(IntegrityError, match=r"ingest-0001/commit\.json is gone, ingest-0002/commit\.json is there"):
        scan(folder)


@pytest.mark.parametrize("gone", ["corpora-1.json", "hashes-0001/plan.json", "ingest-0001/plan.json"])
def test_a_packed_folder_is_one_whatever_else_of_its_ingest_is_gone(folder: Path, gone: str) -> None:
    whole = scan(folder)
    (folder / gone).unlink()
    assert scan(folder) == whole


@pytest.mark.parametrize(
    "name",
    [
        "ingest-0002/commit (1).json",
        "ingest-0002/commit copy.json",
        "ingest-0002 (1)/commit.json",
        "ingest-0002 backup/commit.json",
        "old/ingest-0003/commit.json",
    ],
)
def test_a_foreign_name_is_passed_over(folder: Path, name: str) -> None:
    whole = scan(folder)
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"garbage")
    assert scan(folder) == whole


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: b"",
        lambda folder: b"\x00\xff garbage",
        lambda folder: b"[" * 100_000,
        lambda folder: b"[]",
        lambda folder: b'{"parts": []}',
        lambda folder: commit_of(folder, "0002")[:-40],
        lambda folder: commit_of(folder, "0002").replace(b'"size":', b'"size":1'),
        lambda folder: commit_of(folder, "0002").replace(b"ingest-0002/data/y", b"ingest-0001/data/x"),
        lambda folder: commit_of(folder, "0001"),
        lambda folder: seal({"stage": "ingest-0002"}),
        lambda folder: seal({"stage": "ingest-0002", "parts": 7}),
        lambda folder: seal({"stage": "ingest-0002", "parts": [7]}),
        lambda folder: commit_of(folder, "0002", lambda it: it["parts"][0].update(objects={pack.IMAGES: "x"})),
        lambda folder: commit_of(folder, "0002", lambda it: it["parts"][0]["objects"][pack.IMAGES].update(size="4")),
        lambda folder: commit_of(folder, "0002", lambda it: it["parts"][0]["objects"][pack.IMAGES].pop("key")),
        lambda folder: commit_of(folder, "0002", lambda it: it["parts"][0]["objects"][pack.IMAGES].update(key=[1])),
    ],
)
def test_a_commit_that_is_not_as_it_was_written_is_refused_by_name(
    folder: Path, damage: Callable[[Path], bytes]
) -> None:
    (folder / "ingest-0002/commit.json").write_bytes(damage(folder))
    with pytest.raises(IntegrityError, match=r"ingest-0002/commit\.json: .*Restore it from a backup"):
        scan(folder)


def test_a_shard_that_is_not_what_its_commit_names_is_refused(folder: Path) -> None:
    shard = folder / "ingest-0001/data/x/images.parquet"
    shard.write_bytes(b"PAR1")
    with pytest.raises(InputError, match="has 4 bytes"):
        scan(folder)
    shard.unlink()
    with pytest.raises(InputError, match="is gone"):
        scan(folder)
