import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ray_ns.corpora.corpus import Corpus, Shard, count_per_class, image_ids, split_ids
from ray_ns.errors import InputError


def write(path: Path, images: pa.Array | list[bytes], labels: pa.Array | None = None, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {"image": images} if labels is None else {"image": images, "label": labels}
    pq.write_table(pa.table(columns), path, **options)


def scan(folder: Path, label: str | None = None, known: tuple[Shard, ...] = ()) -> Corpus:
    return Corpus.scan(str(folder), "image", label, known)


@pytest.mark.parametrize("ordinal", [0, 1, 7, 2**30])
def test_image_ids_hold_shard_and_row(ordinal: int) -> None:
    rows = np.array([0, 1, 255, 2**31, 2**32 - 1])
    ids = image_ids(ordinal, rows)
    ordinals, back = split_ids(ids)
    assert ids.dtype == np.int64
    assert (ids >= 0).all()
    assert (np.diff(ids) > 0).all()
    np.testing.assert_array_equal(back, rows)
    np.testing.assert_array_equal(ordinals, np.full(5, ordinal))
    assert image_ids(ordinal, rows)[-1] < image_ids(ordinal + 1, rows)[0]


def test_ids_never_move_when_shards_are_added(tmp_path: Path) -> None:
    for name in ("m", "p"):
        write(tmp_path / f"{name}.parquet", [name.encode()])
    first = scan(tmp_path)
    assert [(shard.path, shard.ordinal) for shard in first.shards] == [("m.parquet", 0), ("p.parquet", 1)]
    for name in ("z", "a", "sub/b"):
        write(tmp_path / f"{name}.parquet", [name.encode()])
    second = scan(tmp_path, known=first.shards)
    assert second.shards[:2] == first.shards
    assert [(shard.path, shard.ordinal) for shard in second.shards[2:]] == [
        ("a.parquet", 2),
        ("sub/b.parquet", 3),
        ("z.parquet", 4),
    ]
    assert scan(tmp_path, known=second.shards).shards == second.shards


def test_a_new_ordinal_is_higher_than_every_known_one(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / f"{name}.parquet", [b"x"])
    shard = scan(tmp_path).shards[1]
    known = (Shard(9, shard.path, shard.size, shard.stamp),)
    assert [(it.path, it.ordinal) for it in scan(tmp_path, known=known).shards] == [("b.parquet", 9), ("a.parquet", 10)]


def _rewrite(path: Path) -> None:
    write(path, [b"another image"])


def _touch(path: Path) -> None:
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1_000_000_000))


@pytest.mark.parametrize(
    ("hurt", "word"), [(_rewrite, "has changed"), (_touch, "has changed"), (Path.unlink, "is gone")]
)
def test_a_known_shard_changed_or_gone_is_refused_by_name(
    tmp_path: Path, hurt: Callable[[Path], None], word: str
) -> None:
    for name in ("a", "b"):
        write(tmp_path / f"{name}.parquet", [b"x"])
    known = scan(tmp_path).shards
    hurt(tmp_path / "b.parquet")
    with pytest.raises(InputError, match=rf"b\.parquet {word}"):
        scan(tmp_path, known=known)


def test_a_known_shard_that_was_touched_is_told_to_whoever_compares(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / f"{name}.parquet", [b"x"])
    known = scan(tmp_path)
    _touch(tmp_path / "b.parquet")
    again = Corpus.scan(str(tmp_path), "image", None, known.shards, compared=True)
    assert (again.shards, [it[:2] for it in again.touched]) == (known.shards, [(1, "b.parquet")])
    _rewrite(tmp_path / "b.parquet")
    with pytest.raises(InputError, match=r"b\.parquet has changed \(\d+ -> \d+ bytes\)"):
        Corpus.scan(str(tmp_path), "image", None, known.shards, compared=True)


def test_a_missing_folder_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: cannot be listed"):
        scan(tmp_path / "nowhere")


def test_a_folder_without_shards_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match=rf"{tmp_path.name}: no \*\.parquet file, .*; found notes\.txt"):
        scan(tmp_path)


def test_an_unknown_kind_of_url_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="nosuch://bucket/pool"):
        Corpus.scan("nosuch://bucket/pool", "image", None)


@pytest.mark.parametrize("spelling", ["{0}", "{0}/", "{0}//", "{0}/../{1}", "file://{0}"])
def test_paths_of_shards_do_not_depend_on_how_the_folder_is_spelled(tmp_path: Path, spelling: str) -> None:
    write(tmp_path / "sub" / "a.parquet", [b"x"])
    corpus = Corpus.scan(spelling.format(tmp_path, tmp_path.name), "image", None)
    assert [shard.path for shard in corpus.shards] == ["sub/a.parquet"]
    assert corpus.open(corpus.shards[0]).images(0).to_pylist() == [b"x"]


@pytest.mark.parametrize(("image", "label", "missing"), [("picture", None, "picture"), ("image", "class", "class")])
def test_a_missing_column_is_refused_with_those_found(
    tmp_path: Path, image: str, label: str | None, missing: str
) -> None:
    write(tmp_path / "a.parquet", [b"x"], pa.array([0]))
    with pytest.raises(InputError, match=rf"a\.parquet: no column '{missing}', found image, label"):
        Corpus.scan(str(tmp_path), image, label)


@pytest.mark.parametrize("damage", ["cut", "text"])
def test_a_file_that_is_no_parquet_is_refused_by_name(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.parquet"
    write(path, [b"x" * 100])
    path.write_bytes(path.read_bytes()[:-20] if damage == "cut" else b"hello")
    with pytest.raises(InputError, match=r"a\.parquet: cannot be read as Parquet"):
        scan(tmp_path)


def test_a_shard_with_a_damaged_page_is_refused_by_name(tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "a.parquet"
    write(path, [rng.bytes(500) for _ in range(20)], compression="none", write_page_checksum=True)
    data = bytearray(path.read_bytes())
    data[5000] ^= 1
    path.write_bytes(data)
    corpus = scan(tmp_path)
    with pytest.raises(InputError, match=r"a\.parquet"):
        corpus.open(corpus.shards[0]).images(0)


@pytest.mark.parametrize(
    "labels",
    [pa.array([[0], [1]]), pa.array([{"a": 1}] * 2), pa.array([0, 1], pa.timestamp("s"))],
    ids=["list", "struct", "time"],
)
def test_labels_of_a_wrong_type_are_refused_by_name(tmp_path: Path, labels: pa.Array) -> None:
    write(tmp_path / "a.parquet", [b"x", b"y"], labels)
    expected = (
        r"a\.parquet: column 'label' is .*; expected one class per image, as integers or texts\. Set data\.label_"
    )
    with pytest.raises(InputError, match=expected):
        scan(tmp_path, "label").labels(3)


@pytest.mark.parametrize(
    "images", [pa.array(["x"]), pa.array([7]), pa.array([{"path": "x"}])], ids=["string", "int", "struct without bytes"]
)
def test_images_of_a_wrong_type_are_refused_by_name(tmp_path: Path, images: pa.Array) -> None:
    write(tmp_path / "a.parquet", images)
    with pytest.raises(InputError, match=r"a\.parquet: column 'image' is"):
        scan(tmp_path)


@pytest.mark.parametrize("kind", ["bytes", "large bytes", "struct"])
def test_plain_bytes_and_hugging_face_structs_read_the_same(tmp_path: Path, kind: str) -> None:
    values = [b"one", None, b"three"]
    columns = {
        "bytes": pa.array(values, pa.binary()),
        "large bytes": pa.array(values, pa.large_binary()),
        "struct": pa.array([{"bytes": value, "path": "p"} for value in values]),
    }
    write(tmp_path / "a.parquet", columns[kind])
    corpus = scan(tmp_path)
    assert corpus.open(corpus.shards[0]).images(0).to_pylist() == values


def test_a_null_struct_is_a_null_image(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", pa.array([{"bytes": b"one", "path": "p"}, None]))
    corpus = scan(tmp_path)
    assert corpus.open(corpus.shards[0]).images(0).to_pylist() == [b"one", None]


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (pa.array([0, 1, 2, 1, 3]), "3"),
        (pa.array([0, 1, 2, 1, -1]), "-1"),
        (pa.array([0, 1, 2, 1, None]), "None"),
        (pa.array([0, 1, 2, 1, 200], pa.uint8()), "200"),
        (pa.array([0, 1, 2, 1, 2**64 - 1], pa.uint64()), str(2**64 - 1)),
    ],
    ids=["too high", "negative", "null", "uint8", "uint64"],
)
def test_a_label_out_of_range_is_refused_with_shard_and_row(tmp_path: Path, labels: pa.Array, found: str) -> None:
    write(tmp_path / "a.parquet", [b"x"] * 5, pa.array([0, 1, 2, 0, 1]))
    write(tmp_path / "b.parquet", [b"x"] * 5, labels, row_group_size=2)
    with pytest.raises(InputError, match=rf"b\.parquet row 4: label is {found}; expected 0 \.\. 2"):
        scan(tmp_path, "label").labels(3)


def test_labels_come_per_shard_in_order_as_int64(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [b"x"] * 3, pa.array([0, 2, 1], pa.int8()))
    write(tmp_path / "b.parquet", [b"x"] * 2, pa.array([2, 2]).dictionary_encode())
    write(tmp_path / "c.parquet", pa.array([], pa.binary()), pa.array([], pa.int64()))
    labels = scan(tmp_path, "label").labels(3)
    assert [part.tolist() for part in labels] == [[0, 2, 1], [2, 2], []]
    assert {part.dtype for part in labels} == {np.dtype(np.int64)}
    assert count_per_class(labels, 4).tolist() == [1, 1, 3, 0]


def test_a_shard_is_read_by_row_group(tmp_path: Path) -> None:
    values = [str(i).encode() for i in range(7)]
    write(tmp_path / "a.parquet", values, row_group_size=3)
    corpus = scan(tmp_path)
    reader = corpus.open(corpus.shards[0])
    assert reader.group_rows == [3, 3, 1]
    assert [reader.images(group).to_pylist() for group in range(3)] == [values[:3], values[3:6], values[6:]]
