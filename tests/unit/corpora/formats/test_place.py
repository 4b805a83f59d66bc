"""What lies at a path is recognised, or said: nothing, more than one kind, a file, an archive."""

from pathlib import Path

import pytest

from ray_ns.corpora.formats.listing import listing
from ray_ns.corpora.formats.place import Kind, Place, recognise
from ray_ns.errors import InputError


def found(root: Path, *names: str) -> tuple[Kind, list[str]]:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return recognise(str(root), listing(Place.of(str(root))).files)


@pytest.mark.parametrize(
    ("names", "kind", "paths"),
    [
        (["b.parquet", "sub/a.parquet", "README.md"], Kind.PARQUET, ["b.parquet", "sub/a.parquet"]),
        (["1.tar", "0.tar", "sizes.json"], Kind.TAR, ["0.tar", "1.tar"]),
        (["cat/1.jpg", "dog/1.webp", "labels.txt"], Kind.FOLDER, ["cat/1.jpg", "dog/1.webp"]),
        (["1.jpg", "labels.csv"], Kind.FOLDER, ["1.jpg"]),
    ],
)
def test_the_kind_is_what_lies_there(tmp_path: Path, names: list[str], kind: Kind, paths: list[str]) -> None:
    assert found(tmp_path, *names) == (kind, paths)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], "it is empty"),
        (["a.txt", "b.txt", "c.md", "d"], "found a.txt, b.txt, c.md ..."),
        (["pool.tar.gz"], "unpack them"),
        (["a.parquet", "x/1.jpg", "x/2.jpg"], "holds 1 Parquet shards (a.parquet) and 2 image files (x/1.jpg)"),
        (["a.tar", "1.jpg"], "1 tars (a.tar) and 1 image files (1.jpg)"),
    ],
)
def test_nothing_or_a_mixture_is_refused_with_what_was_found(tmp_path: Path, names: list[str], words: str) -> None:
    with pytest.raises(InputError) as caught:
        found(tmp_path, *names)
    assert str(tmp_path) in str(caught.value)
    assert words in str(caught.value)


def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"x")
    with pytest.raises(InputError, match=r"a\.tar: is a file\. Give the folder it lies in"):
        listing(Place.of(str(tmp_path / "a.tar")))


@pytest.mark.parametrize(
    ("name", "mend"),
    [
        ("a.tar.gz", "unpack them"),
        ("a.tgz", "unpack them"),
        ("a.tar.zst", "unpack them"),
        ("b.zip", "unpack them"),
        ("data-00000-of-00001.arrow", "datasets.load_from_disk"),
        ("a.feather", "pandas.read_feather"),
        ("t.lance/data/x.bin", "lance.dataset"),
        ("train.tfrecord", "TFRecords are not read"),
        ("train.tfrecord-00000-of-00010", "TFRecords are not read"),
        ("data.mdb", "LMDB is not read"),
        ("x.h5", "Arrays are not read"),
        ("x.npz", "Arrays are not read"),
        ("train.rec", "Arrays are not read"),
        ("train.csv", "the images it lists"),
    ],
)
def test_what_is_not_read_is_named_with_its_mend(name: str, mend: str) -> None:
    with pytest.raises(InputError, match=f"{name}.*{mend}"):
        recognise("r", [name, "README.md"])
