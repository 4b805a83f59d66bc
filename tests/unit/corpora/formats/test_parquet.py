"""Parquet that is damaged, lies in its footer or holds something huge: one line or one image, never a traceback."""

import io
import json
import os
import struct
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.shards import KINDS, write_as

from ray_ns.corpora.corpus import Corpus
from ray_ns.corpora.formats import folder, parquet, tar
from ray_ns.corpora.formats.place import Place
from ray_ns.errors import InputError
from ray_ns.images.decode import MAX_BYTES, Decode, Reason


def write(path: Path, columns: Any, **how: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), path, **how)
    return path


def labelled(root: Path) -> Corpus:
    return Corpus.scan(str(root), "image", "label")


@pytest.mark.parametrize("groups", [7, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_an_image_of_too_many_bytes_is_not_read_and_costs_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, groups: int
) -> None:
    images = [bytes([row]) * 100 for row in range(6)]
    images[3] = b"x" * 400_000
    corpus = write_as(kind, tmp_path / "pool", images, groups)
    for module in (folder, parquet, tar):
        monkeypatch.setattr(module, "MAX_BYTES", 100_000)
    reader = corpus.open(corpus.shards[0])
    found = [image for group in range(len(reader.group_rows)) for image in reader.images(group).to_pylist()]
    assert [Decode(8, 3)(image) is Reason.TOO_LARGE for image in found] == [row == 3 for row in range(6)]
    assert found[:3] + found[4:] == images[:3] + images[4:]
    assert reader.where(3).encode() in found[3]
    if kind in {"folder", "tar"} or (groups == 1 and kind != "packed"):
        assert reader.bytes_read < 100_000
    chosen = reader.images(0, np.array([0])) if groups == 1 else reader.images(0, np.array([2, 3]))
    assert len(chosen) == (1 if groups == 1 else 2)


def test_a_sparse_file_and_a_sparse_member_of_gigabytes_are_not_read(tmp_path: Path) -> None:
    for root in ("folder", "tars"):
        (tmp_path / root).mkdir()
    for path, begin, size in [("folder/0.jpg", b"", 30 << 30), ("tars/a.tar", _header("0.jpg", 20 << 30), 20 << 30)]:
        (tmp_path / path).write_bytes(begin)
        os.truncate(tmp_path / path, len(begin) + size + (1024 if begin else 0))
    for root in ("folder", "tars"):
        corpus = Corpus.scan(str(tmp_path / root), "image", None)
        (data,) = corpus.open(corpus.shards[0]).images(0).to_pylist()
        assert Decode(8, 3)(data) is Reason.TOO_LARGE


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


def test_the_limit_of_bytes_holds_the_largest_uncompressed_image() -> None:
    assert MAX_BYTES > 4 * 50_000_000


@pytest.mark.parametrize(
    "metadata",
    [
        b"",
        b"\xff",
        b"{",
        b"[]",
        b"7",
        b"[" * 100_000,
        b'{"info": 3}',
        b'{"info": {"features": []}}',
        *(json.dumps({"info": {"features": {"label": {"names": names}}}}).encode() for names in ("cat", 3, [1, 2])),
        *(json.dumps({"info": {"features": {"label": {"names": it}}}}).encode() for it in (["a", "a"], [None], [[]])),
    ],
)
def test_metadata_that_no_library_writes_is_one_line(tmp_path: Path, metadata: bytes) -> None:
    table = pa.table({"image": [b"x"], "label": [0]}).replace_schema_metadata({b"huggingface": metadata})
    write(tmp_path / "a.parquet", table)
    with pytest.raises(InputError, match=r"a\.parquet: its metadata 'huggingface' is not what the library datasets"):
        labelled(tmp_path).class_names()


def _varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


@pytest.mark.parametrize("rows", [-1, 0, 4, 2**31, 2**40, 2**62])
def test_numbers_of_rows_that_the_columns_do_not_have_are_one_line(tmp_path: Path, rows: int) -> None:
    """Every count of rows in the footer, zigzag varints, is overwritten."""
    path = write(tmp_path / "a.parquet", {"image": [bytes([it]) for it in range(77)], "label": [0] * 77})
    data = path.read_bytes()
    size = struct.unpack("<I", data[-8:-4])[0]
    footer = data[-8 - size : -8]
    wrong = _varint((rows << 1) ^ (rows >> 63) if rows >= 0 else 2 * -rows - 1)
    for count in (1, 2):  # of the whole file, and of its row group
        hurt = _last(footer, b"\x16" + _varint(154), b"\x16" + wrong, count)
        path.write_bytes(data[: -8 - size] + hurt + struct.pack("<I", len(hurt)) + b"PAR1")
        with pytest.raises(InputError, match=r"a\.parquet: (damaged|cannot be read as) Parquet"):
            labelled(tmp_path).labels(3)


def _last(text: bytes, old: bytes, new: bytes, count: int) -> bytes:
    assert text.count(old) >= count
    return new.join(text.rsplit(old, count))


FUZZ = """
import sys
import numpy as np
from pathlib import Path
from ray_ns.errors import InputError
from ray_ns.corpora.corpus import Corpus
path = Path(sys.argv[1])
whole, rng = path.read_bytes(), np.random.default_rng(int(sys.argv[2]))
outcomes = {}
for number in range(int(sys.argv[3])):
    data = bytearray(whole)
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(4, len(data)))
        data[at] = int(rng.integers(0, 256)) if rng.random() < 0.5 else data[at] ^ (1 << int(rng.integers(8)))
    if rng.random() < 0.1:
        del data[int(rng.integers(4, len(data) - 8)) : -8]
    path.write_bytes(data)
    try:
        corpus = Corpus.scan(str(path.parent), "image", "label")
        corpus.class_names()
        corpus.labels(10)
        reader = corpus.open(corpus.shards[0])
        for group in range(len(reader.group_rows)):
            reader.images(group).to_pylist()
            reader.images(group, np.array([0])).to_pylist()
        said = "read"
    except InputError as error:
        said = "refused"
        assert len(str(error)) < 2000, str(error)
    outcomes[said] = outcomes.get(said, 0) + 1
print(outcomes)
"""


@pytest.mark.parametrize("kind", ["plain", "hugging face", "packed"])
def test_no_mutation_of_parquet_is_anything_but_a_refusal(tmp_path: Path, kind: str) -> None:
    """In a process of its own, for a damaged footer must not take the process with it either."""
    images = [bytes([row]) * 40 for row in range(12)]
    write_as(kind, tmp_path / "pool", images, 5)
    path = tmp_path / "pool/0.parquet"
    table = pq.read_table(path)
    names = json.dumps({"info": {"features": {"label": {"names": [str(it) for it in range(10)]}}}})
    table = table.append_column("label", pa.array([row % 10 for row in range(12)], pa.int32()))
    write(path, table.replace_schema_metadata({b"huggingface": names.encode()}), row_group_size=5)
    done = subprocess.run([sys.executable, "-c", FUZZ, path, "0", "300"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "'refused'" in done.stdout
    assert "'read'" in done.stdout


def test_a_group_of_more_than_the_limit_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many images of an honest size in one row group are no large image."""
    monkeypatch.setattr(parquet, "MAX_BYTES", 5000)
    images = [None if row % 9 == 4 else np.random.default_rng(row).bytes(row * 10) for row in range(100)]
    write(tmp_path / "a.parquet", {"image": pa.array(images, pa.binary())})
    reader = parquet.ParquetReader(Place.of(str(tmp_path)), "a.parquet", "image", None)
    assert reader.images(0).to_pylist() == images
    assert reader.images(0, np.array([3, 4, 99])).to_pylist() == [images[3], None, images[99]]


def test_what_is_no_parquet_is_one_line(tmp_path: Path) -> None:
    for data in (b"", b"PAR1", b"PAR1" * 3, b"PAR1" + bytes(100) + b"\xff\xff\xff\x7fPAR1", io.BytesIO().getvalue()):
        (tmp_path / "a.parquet").write_bytes(data)
        with pytest.raises(InputError, match=r"a\.parquet: cannot be read as Parquet"):
            labelled(tmp_path).labels(3)


TEXTS = ["owl", "cat", None, "owl"]


@pytest.mark.parametrize(
    "texts",
    [
        pa.array(TEXTS),
        pa.array(TEXTS, pa.large_string()),
        pa.array(TEXTS).dictionary_encode(),
        pa.array(TEXTS).cast(pa.binary()),
        pa.array(TEXTS, pa.string_view()),
    ],
    ids=lambda it: str(it.type)[:10],
)
def test_labels_that_are_texts_are_names(tmp_path: Path, texts: pa.Array) -> None:
    write(tmp_path / "a.parquet", {"image": [b"x"] * 4, "label": texts})
    corpus = labelled(tmp_path)
    assert corpus.class_names() == corpus.names == ("cat", "owl")
    with pytest.raises(InputError, match=r"a\.parquet row 2: label is None; expected 0 \.\. 1"):
        corpus.labels(2)
    write(tmp_path / "a.parquet", {"image": [b"x"] * 3, "label": pa.array(["owl", "cat", "owl"]).cast(texts.type)})
    assert labelled(tmp_path).labels(2)[0].tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    "numbers", [[1.0, 0.5], [1.0, float("nan")], [1e300, 0.0], pa.array(["1.0", "0.5"]).cast(pa.decimal128(9, 2))]
)
def test_numbers_that_are_no_classes_are_one_line(tmp_path: Path, numbers: Any) -> None:
    write(tmp_path / "a.parquet", {"image": [b"x"] * 2, "label": numbers})
    with pytest.raises(InputError, match=r"a\.parquet: column 'label' is .* and not all of it whole"):
        labelled(tmp_path).labels(2)


@pytest.mark.parametrize(("value", "names"), [("3", None), ("cat", ("cat",)), ("b%20c", ("b c",))])
def test_a_label_in_the_path_is_read_as_hive_and_spark_write_it(tmp_path: Path, value: str, names: Any) -> None:
    write(tmp_path / f"label={value}" / "part-0.parquet", {"image": [b"x", b"y"]})
    corpus = labelled(tmp_path)
    assert corpus.class_names() == names
    assert corpus.labels(9)[0].tolist() == [0 if names else 3] * 2
    write(tmp_path / "label=__HIVE_DEFAULT_PARTITION__" / "part-0.parquet", {"image": [b"x"]})
    with pytest.raises(InputError, match="no column 'label', found image"):
        labelled(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "_temporary/0/part-0.parquet",
        "_metadata",
        "_common_metadata.parquet",
        "_SUCCESS",
        ".a.parquet.crc",
        "_x/b.parquet",
    ],
)
def test_what_spark_and_hive_leave_behind_is_passed_over(tmp_path: Path, name: str) -> None:
    for path in ("a.parquet", "day=1/b.parq", "day=1/c.PARQUET", name):
        write(tmp_path / path, {"image": [b"x"], "label": [0]})
    assert [it.path for it in labelled(tmp_path).shards] == ["a.parquet", "day=1/b.parq", "day=1/c.PARQUET"]


def test_a_delta_table_is_refused_for_its_files_may_be_deleted_ones(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"image": [b"x"], "label": [0]})
    write(tmp_path / "_delta_log/0.checkpoint.parquet", {"add": [1]})
    with pytest.raises(InputError, match="is a Delta table, whose log says which of its files count"):
        labelled(tmp_path)


def by_path(root: Path, paths: list[str | None], file: str = "a.parquet") -> None:
    structs = [{"bytes": b"inside" if path is None else None, "path": path} for path in paths]
    write(root / file, {"image": pa.array(structs, pa.struct({"bytes": pa.binary(), "path": pa.string()}))})


def test_images_that_only_have_a_path_are_read_beside_their_shard(tmp_path: Path) -> None:
    for path in ("data/a/0.jpg", "top.jpg"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(path.encode())
    paths = ["a/0.jpg", "top.jpg", f"{tmp_path}/top.jpg", None, "../top.jpg", "gone.jpg", "../../x.jpg", "/etc/passwd"]
    by_path(tmp_path, paths, "data/a.parquet")
    (corpus,) = [Corpus.scan(str(tmp_path), "image", None)]
    found = corpus.open(corpus.shards[0]).images(0).to_pylist()
    assert found == [b"data/a/0.jpg", b"top.jpg", b"top.jpg", b"inside", b"top.jpg", None, None, None]


@pytest.mark.parametrize("path", ["/home/u/0.jpg", "gone.jpg", "../out.jpg", "http://a/b.jpg", "a\0b", ""])
def test_images_that_only_have_a_path_out_of_the_corpus_are_named_with_the_mend(tmp_path: Path, path: str) -> None:
    (tmp_path / "out.jpg").write_bytes(b"x")
    by_path(tmp_path / "data", [path, path])
    with pytest.raises(InputError, match=r"a\.parquet row 0: has no bytes, only the path .* Embed the bytes"):
        Corpus.scan(str(tmp_path / "data"), "image", None)


def test_image_files_beside_parquet_that_holds_its_images_are_two_kinds(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"image": [b"x"]})
    (tmp_path / "0.jpg").write_bytes(b"x")
    with pytest.raises(InputError, match=r"holds 1 Parquet shards \(a\.parquet\) and 1 image files \(0\.jpg\)"):
        Corpus.scan(str(tmp_path), "image", None)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (
            {"jpg": [b"x"], "text": ["t"]},
            r"no column 'image', found jpg, text; of images may be jpg\. Set data\.image_col",
        ),
        ({"img": [{"bytes": b"x"}]}, r"no column 'image', found img; of images may be img\."),
        ({"a": [1]}, r"no column 'image', found a\. Set data\.image_column"),
        (
            {"image": ["aGVsbG8="], "jpg": [b"x"]},
            r"is string; .* Paths and base64 are not followed\. .*image_column to one of jpg",
        ),
        ({"image": [[1, 2]]}, r"is list<element: int64>; expected encoded images as binary"),
        ({"photo": [{"image": b"x"}]}, r"no column 'image', found photo"),
    ],
)
def test_a_column_that_holds_no_images_is_named_with_those_that_may(tmp_path: Path, columns: Any, words: str) -> None:
    write(tmp_path / "a.parquet", columns)
    with pytest.raises(InputError, match=rf"a\.parquet: .*{words}"):
        Corpus.scan(str(tmp_path), "image", None)


@pytest.mark.parametrize("begin", [b"version https://git-lfs.github.com/spec/v1\noid", b"\x1f\x8b\x08", b"ARROW1\0\0"])
def test_another_format_called_parquet_is_named_with_its_mend(tmp_path: Path, begin: bytes) -> None:
    (tmp_path / "a.parquet").write_bytes(begin + bytes(100))
    with pytest.raises(InputError, match=r"a\.parquet: is no Parquet but (a Git LFS pointer.*git lfs pull|gzip|Arrow)"):
        Corpus.scan(str(tmp_path), "image", None)


@pytest.mark.parametrize("statistics", [True, False])
def test_paths_instead_of_images_are_seen_without_statistics_too(tmp_path: Path, statistics: bool) -> None:
    structs = [{"bytes": None, "path": f"/home/{number}.jpg"} for number in range(300)]
    column = pa.array(structs, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    write(tmp_path / "a.parquet", {"image": column}, write_statistics=statistics)
    with pytest.raises(InputError, match=r"only the path '/home/0\.jpg'"):
        Corpus.scan(str(tmp_path), "image", None)


@pytest.mark.parametrize("distinct", [True, False])
def test_a_group_that_fills_the_memory_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, distinct: bool
) -> None:
    """Of many images it is refused at once; of one image that a dictionary repeats, before all of it is unpacked."""
    images = [np.random.default_rng(row * distinct).bytes(1000) for row in range(200)]
    write(tmp_path / "a.parquet", {"image": images}, use_dictionary=not distinct)
    assert Corpus.scan(str(tmp_path), "image", None).open(Corpus.scan(str(tmp_path), "image", None).shards[0])
    monkeypatch.setattr(parquet, "MAX_GROUP_BYTES", 100_000)
    with pytest.raises(InputError, match=r"a\.parquet: row group 0 holds more than .* row_group_size=1000"):
        parquet.ParquetReader(Place.of(str(tmp_path)), "a.parquet", "image", None).images(0)
    if distinct:
        with pytest.raises(InputError, match="row group 0"):
            Corpus.scan(str(tmp_path), "image", None)


def test_an_image_that_a_dictionary_repeats_is_read_as_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.parquet", {"image": [b"x" * 1000] * 50})
    monkeypatch.setattr(parquet, "MAX_GROUP_BYTES", 60_000)
    reader = parquet.ParquetReader(Place.of(str(tmp_path)), "a.parquet", "image", None)
    assert reader.images(0).to_pylist() == [b"x" * 1000] * 50
