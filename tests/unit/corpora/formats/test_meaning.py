"""Every shard says of its labels what the first one says, or is named with what differs; names become numbers."""

import io
import json
import tarfile
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ray_ns.corpora.corpus import Corpus
from ray_ns.errors import InputError

Make = Callable[[Path], object]
BYTES = [b"x", b"y"]


def parquet(
    image: Any = BYTES, label: Any = (0, 1), names: tuple[str, ...] | None = None, column: str = "image"
) -> Make:
    def make(path: Path) -> None:
        table = pa.table({column: image, "label": label})
        if names:
            features = {"label": {"_type": "ClassLabel", "names": names}}
            table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        path.parent.mkdir(exist_ok=True)
        pq.write_table(table, path.with_suffix(".parquet"))

    return make


def tar(*members: tuple[str, bytes]) -> Make:
    def make(path: Path) -> None:
        path.parent.mkdir(exist_ok=True)
        with tarfile.open(path.with_suffix(".tar"), "w") as archive:
            for name, data in members:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))

    return make


def labels(root: Path) -> list[Any]:
    corpus = Corpus.scan(str(root), "image", "label")
    names = corpus.class_names()
    numbers = [label for part in corpus.labels(100) for label in part.tolist()]
    return [names[label] for label in numbers] if names else numbers


APART = unicodedata.normalize("NFD", "café")


@pytest.mark.parametrize(
    "make",
    [
        parquet(label=[APART, "tea"]),
        parquet(names=(APART, "tea")),
        tar((f"{APART}/0.jpg", b"x"), ("tea/1.jpg", b"y")),
        tar((f"{APART}/{APART}/0.jpg", b"x"), (f"{APART}/tea/1.jpg", b"y")),
        tar(("0.jpg", b"x"), ("0.cls", APART.encode()), ("1.jpg", b"y"), ("1.cls", b"tea")),
    ],
)
def test_names_of_classes_are_in_one_unicode_form(tmp_path: Path, make: Make) -> None:
    make(tmp_path / "r" / "0")
    assert labels(tmp_path / "r") == ["café", "tea"]


def test_names_of_tars_are_in_one_unicode_form(tmp_path: Path) -> None:
    for name in (APART, "tea"):
        tar(("0.jpg", b"x"))(tmp_path / "r" / name)
    assert labels(tmp_path / "r") == ["café", "tea"]


STRUCTS = [{"bytes": b"x", "path": "x"}, {"bytes": b"y", "path": "y"}]
NAMES = ("cat", "dog", "owl")
IMAGES = [("0.jpg", b"x"), ("1.jpg", b"y")]
NUMBERS = tar(*IMAGES, ("0.cls", b"0"), ("1.cls", b"1"))


@pytest.mark.parametrize(
    ("alike", "other", "words"),
    [
        (parquet(names=NAMES), parquet(names=("cat", "owl", "dog")), "class 1 is 'owl'; in 0.parquet it is 'dog'"),
        (parquet(names=NAMES), parquet(names=NAMES[:2]), "class 2 is not there; in 0.parquet it is 'owl'"),
        (parquet(names=NAMES), parquet(names=(*NAMES, "yak")), "class 3 is 'yak'; in 0.parquet it is not there"),
        (parquet(names=NAMES), parquet(), "does not name its classes; 0.parquet does"),
        (parquet(), parquet(names=NAMES), "names its classes; 0.parquet does not"),
        (parquet(), parquet(label=["0", "1"]), "column 'label' is of names; in 0.parquet: numbers"),
        (parquet(label=["a", "b"]), parquet(), "column 'label' is of numbers; in 0.parquet: names"),
        (parquet(), parquet(STRUCTS), "column 'image' is a struct; in 0.parquet: binary"),
        (
            parquet(),
            parquet(column="img"),
            "no column 'image', found img, label; of images may be img. Set data.image_c",
        ),
        (parquet(), parquet(["x", "y"]), "column 'image' is string; expected encoded images as binary"),
        (parquet(), parquet(label=[[0], [1]]), "column 'label' is list<element: int64>; expected one class per image"),
        (NUMBERS, tar(*IMAGES, ("0.cls", b"cat")), "labels are names, from .cls; in 0.tar: numbers, from .cls"),
        (NUMBERS, tar(*IMAGES, ("0.json", b'{"label": 1}')), "labels are numbers, from .json; in 0.tar: numbers, from"),
        (NUMBERS, tar(*IMAGES), "labels are names, from nothing; in 0.tar: numbers, from .cls"),
        (NUMBERS, tar(("cat/0.jpg", b"x")), "labels are names, from the folders in it; in 0.tar: numbers, from .cls"),
    ],
)
def test_a_shard_that_differs_from_the_first_is_named_with_what_differs(
    tmp_path: Path, alike: Make, other: Make, words: str
) -> None:
    for number in (0, 1, 2, 4):
        alike(tmp_path / str(number))
    labels(tmp_path)
    other(tmp_path / "3")
    with pytest.raises(InputError) as caught:
        labels(tmp_path)
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path}/3.")


def test_a_pool_is_held_together_too_and_what_it_gains(tmp_path: Path) -> None:
    for name in ("a", "b"):
        parquet()(tmp_path / name)
    known = Corpus.scan(str(tmp_path), "image", None).shards
    parquet(STRUCTS)(tmp_path / "c")
    for seen in ((), known):
        with pytest.raises(InputError, match=r"c\.parquet: column 'image' is a struct; in a\.parquet: binary"):
            Corpus.scan(str(tmp_path), "image", None, seen)


@pytest.mark.parametrize("image", [BYTES, pa.array(BYTES, pa.large_binary()), pa.array(BYTES, pa.binary(1))])
@pytest.mark.parametrize("label", [[0, 1], pa.array([0, 1], pa.uint8()), [False, True], [0.0, 1.0]])
def test_types_of_the_same_meaning_are_alike(tmp_path: Path, image: Any, label: Any) -> None:
    parquet()(tmp_path / "a")
    parquet(image, label)(tmp_path / "b")
    pq.write_table(pa.table({"id": [1, 2], "label": [0, 1], "image": BYTES}), tmp_path / "c.parquet")
    assert labels(tmp_path) == [0, 1] * 3


def test_an_empty_tar_is_like_any_other(tmp_path: Path) -> None:
    tar()(tmp_path / "a")
    NUMBERS(tmp_path / "b")
    tar(("README", b"r"))(tmp_path / "c")
    assert labels(tmp_path) == [0, 1]


def test_numbers_of_names_are_those_of_the_labelled_corpus(tmp_path: Path) -> None:
    parquet(label=["owl", "cat"])(tmp_path / "labelled/a")
    parquet(label=["dog", "cat"])(tmp_path / "labelled/b")
    tar(("0.jpg", b"x"), ("0.json", b'{"label": "owl"}'))(tmp_path / "test/a")
    labelled = Corpus.scan(str(tmp_path / "labelled"), "image", "label")
    assert labelled.class_names() == NAMES
    test = Corpus.scan(str(tmp_path / "test"), "image", "label", (), labelled.class_names())
    assert [part.tolist() for part in labelled.labels(3)] == [[2, 0], [1, 0]]
    assert [part.tolist() for part in test.labels(3)] == [[2]]
    assert test.class_names() == ("owl",)
    tar(("0.jpg", b"x"), ("0.cls", b"yak"))(tmp_path / "other/a")
    other = Corpus.scan(str(tmp_path / "other"), "image", "label", (), labelled.class_names())
    with pytest.raises(
        InputError, match=r"a\.tar: 0\.jpg: class 'yak' is none of the labelled corpus, which has cat, d"
    ):
        other.labels(3)


def test_names_keep_their_numbers_in_a_corpus_that_is_divided(tmp_path: Path) -> None:
    parquet(label=["owl", "cat"])(tmp_path / "a")
    corpus = Corpus.scan(str(tmp_path), "image", "label").keeping([np.array([True, False])])
    assert (corpus.class_names(), [part.tolist() for part in corpus.labels(2)]) == (("cat", "owl"), [[1]])
