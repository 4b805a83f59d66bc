"""Some rows of a group are those of the whole group, and little else is read for them, whatever they lie in."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.shards import packed, write_as

from ray_ns.corpora import pack
from ray_ns.corpora.corpus import Corpus
from ray_ns.corpora.formats import folder, parquet, tar
from ray_ns.corpora.formats.place import Place
from ray_ns.errors import InputError

BY_ROW, WHOLE = ["folder", "tar", "packed"], ["plain", "hugging face", "packed, then compressed", "packed, then paged"]


def parquet_of(columns: Any, **how: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), sink, **how)
    return sink.getvalue()


def write(kind: str, root: Path, images: list[bytes]) -> Corpus:
    """The images as one shard."""
    if not kind.startswith("packed, then"):
        return write_as(kind, root, images, pack.GROUP_ROWS)
    root.mkdir()
    how = {
        "packed, then compressed": {},
        "packed, then paged": {
            "compression": "none",
            "use_dictionary": False,
            "data_page_size": 1,
            "write_statistics": False,
            "write_batch_size": 5,
        },
    }[kind]
    again = pq.read_table(io.BytesIO(packed(images)))
    (root / "0.parquet").write_bytes(parquet_of(again, row_group_size=pack.GROUP_ROWS, **how))
    return Corpus.scan(str(root), "image", None)


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (pack, folder, tar):
        monkeypatch.setattr(module, "GROUP_ROWS", 17)


def choices(rows: int, rng: np.random.Generator) -> list[np.ndarray]:
    some = [np.flatnonzero(rng.random(rows) < share) for share in (0.1, 0.3, 0.6, 0.9)]
    return [np.array([], np.int64), np.arange(rows), np.array([0]), np.array([rows - 1]), *some]


@pytest.mark.usefixtures("small_groups")
@pytest.mark.parametrize("divided", [False, True])
@pytest.mark.parametrize("kind", [*BY_ROW, *WHOLE])
def test_rows_of_a_group_are_those_of_the_whole(
    tmp_path: Path, rng: np.random.Generator, kind: str, divided: bool
) -> None:
    images = [rng.bytes(int(size)) for size in rng.integers(1, 900, 45)]
    corpus = write(kind, tmp_path / "pool", images)
    keep = np.ones(45, bool)
    if divided:
        keep[[0, 3, 4, 16, 17, 30, 44]] = False
        corpus = corpus.keeping([keep])
    reader = corpus.open(corpus.shards[0])
    assert reader.reads_rows is (kind not in ("plain", "hugging face"))
    groups = [[images[row] for row in range(at, min(at + 17, 45)) if keep[row]] for at in (0, 17, 34)]
    assert reader.group_rows == [len(group) for group in groups]
    for number, group in enumerate(groups):
        assert reader.images(number).to_pylist() == group
        for rows in choices(len(group), rng):
            found = reader.images(number, rows)
            assert found.to_pylist() == [group[row] for row in rows]
            assert found.type in (pa.binary(), pa.large_binary())


@pytest.fixture
def bytes_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The size of every read of every file, of footers and headers too."""
    sizes: list[int] = []

    class Noted(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            data = super().read(size)
            sizes.append(len(data))
            return data

    monkeypatch.setattr(
        Place, "open", lambda place, path: pa.PythonFile(Noted(Path(f"{place.base}/{path}").read_bytes()), "r")
    )
    return sizes


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("kind", BY_ROW)
def test_no_more_than_half_as_much_again_is_read_as_is_used(
    tmp_path: Path, bytes_read: list[int], kind: str, share: float
) -> None:
    rng = np.random.default_rng(int(10 * share))
    images = [rng.bytes(int(size)) for size in rng.integers(60_000, 140_000, 80)]
    corpus = write(kind, tmp_path / "pool", images)
    reader = corpus.open(corpus.shards[0])
    used = 0
    for group, rows in enumerate(reader.group_rows):
        found = reader.images(group, np.flatnonzero(rng.random(rows) < share))
        used += sum(map(len, found.to_pylist()))
    assert share * 6_000_000 < used
    assert used <= reader.bytes_read <= sum(bytes_read) <= 1.5 * used


@pytest.mark.parametrize("kind", WHOLE)
def test_what_cannot_be_read_by_row_says_what_it_reads(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(0)
    images = [rng.bytes(3000) for _ in range(100)]
    corpus = write(kind, tmp_path / "pool", images)
    reader = corpus.open(corpus.shards[0])
    reader.images(0, np.array([5]))
    assert 300_000 < reader.bytes_read < 310_000


def hurt(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert data.count(old) == 1
    path.write_bytes(data.replace(old, new))


def flip_image(path: Path, images: list[bytes]) -> None:
    hurt(path, images[30], images[30][:-1] + bytes([images[30][-1] ^ 1]))


def flip_length(path: Path, images: list[bytes]) -> None:
    length = len(images[30]).to_bytes(4, "little")
    hurt(path, length + images[30], (len(images[30]) ^ 1).to_bytes(4, "little") + images[30])


def swap_images(path: Path, images: list[bytes]) -> None:
    """The values of two rows change places: each has its own length, at the other's place."""
    parts = [len(images[row]).to_bytes(4, "little") + images[row] for row in (30, 31)]
    hurt(path, parts[0] + parts[1], parts[1] + parts[0])


@pytest.mark.usefixtures("small_groups")
@pytest.mark.parametrize("damage", [flip_image, flip_length, swap_images])
def test_an_image_that_is_not_what_was_packed_is_refused_by_name(
    tmp_path: Path, rng: np.random.Generator, damage: Callable[[Path, list[bytes]], None]
) -> None:
    images = [rng.bytes(100 + row) for row in range(45)]
    corpus = write("packed", tmp_path / "pool", images)
    damage(tmp_path / "pool" / "0.parquet", images)
    reader = corpus.open(corpus.shards[0])
    assert reader.images(1, np.array([0, 12])).to_pylist() == [images[17], images[29]]
    with pytest.raises(InputError, match=r"0\.parquet row 30: not the image of 130 bytes and CRC-32 [0-9a-f]{8} that"):
        reader.images(1, np.array([0, 13]))
    with pytest.raises(InputError, match=r"0\.parquet: damaged Parquet"):
        reader.images(1)


@pytest.mark.usefixtures("small_groups")
def test_a_flipped_bit_in_a_size_is_refused_by_the_name_of_the_file(tmp_path: Path, rng: np.random.Generator) -> None:
    images = [rng.bytes(70_000 + row) for row in range(9)]
    corpus = write("packed", tmp_path / "pool", images)
    sizes = b"".join(len(image).to_bytes(4, "little") for image in images)
    hurt(tmp_path / "pool" / "0.parquet", sizes, bytes([sizes[0] ^ 1]) + sizes[1:])
    with pytest.raises(InputError, match=r"0\.parquet: damaged Parquet"):
        corpus.open(corpus.shards[0]).images(0, np.array([3]))


@pytest.mark.parametrize("kind", BY_ROW)
def test_a_file_cut_after_it_was_opened_is_refused(tmp_path: Path, rng: np.random.Generator, kind: str) -> None:
    corpus = write(kind, tmp_path / "pool", [rng.bytes(1000) for _ in range(20)])
    reader = corpus.open(corpus.shards[0])
    for file in (tmp_path / "pool").iterdir():
        file.write_bytes(file.read_bytes()[:900])
    with pytest.raises(InputError, match=str(tmp_path)):
        reader.images(0, np.array([3, 19]))


def test_a_packed_group_is_one_page_however_large_its_images_are(rng: np.random.Generator) -> None:
    images = [rng.bytes(size) for size in (7 << 20, 3 << 20, 0, 5)]
    file = pq.ParquetFile(io.BytesIO(packed(images)))
    chunk = file.metadata.row_group(0).column(0)
    assert chunk.total_compressed_size - (10 << 20) - 2 * 4 <= parquet.PAGE_HEADER
