"""Every labelled corpus means the same classes, or the difference is named."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ray_ns.config import Data
from ray_ns.corpora.classes import class_count, class_names
from ray_ns.corpora.corpus import Corpus
from ray_ns.errors import InputError

Make = Callable[[Path], object]


def folders(*names: str) -> Make:
    def make(root: Path) -> None:
        for name in names:
            (root / name).mkdir(parents=True)
            (root / name / "1.jpg").write_bytes(b"x")

    return make


def csv(text: str) -> Make:
    def make(root: Path) -> None:
        root.mkdir()
        (root / "1.jpg").write_bytes(b"x")
        (root / "labels.csv").write_text(f"file,label\n1.jpg,{text}\n")

    return make


def parquet(*names: str) -> Make:
    def make(root: Path) -> None:
        root.mkdir()
        table = pa.table({"image": [b"x"], "label": [0]})
        if names:
            features = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
            table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
        pq.write_table(table, root / "0.parquet")

    return make


def names_of(tmp_path: Path, labelled: Make, other: Make | None = None, classes: int | None = None):
    labelled(tmp_path / "labelled")
    corpora = {"labelled": Corpus.scan(str(tmp_path / "labelled"), "image", "label")}
    if other is not None:
        other(tmp_path / "other")
        names = corpora["labelled"].class_names()
        corpora |= dict.fromkeys(
            ("validation", "test"), Corpus.scan(str(tmp_path / "other"), "image", "label", names=names)
        )
    given = None if other is None else "x"
    data = Data.model_validate(
        {"labelled": "x", "pool": "x", "validation": given, "test": given, "classes": classes, "channels": 3}
    )
    return class_names(data, corpora)


@pytest.mark.parametrize(
    ("labelled", "other", "expected"),
    [
        (folders("cat", "dog"), None, ("cat", "dog")),
        (folders("cat", "dog"), folders("dog", "cat"), ("cat", "dog")),
        (folders("cat"), csv("cat"), ("cat",)),
        (folders("0", "1"), parquet(), ("0", "1")),
        (folders("0", "1"), csv("1"), ("0", "1")),
        (parquet(), folders("0", "1"), None),
        (parquet("cat", "dog"), folders("cat", "dog"), ("cat", "dog")),
        (parquet("dog", "cat"), folders("cat", "dog"), ("dog", "cat")),
        (parquet("cat", "dog"), parquet("cat", "dog"), ("cat", "dog")),
        (parquet("cat", "dog"), parquet(), ("cat", "dog")),
        (parquet(), parquet(), None),
        (csv("3"), csv("2"), None),
    ],
)
def test_corpora_that_mean_the_same_classes_pass(tmp_path: Path, labelled: Make, other: Make, expected) -> None:
    assert names_of(tmp_path, labelled, other) == expected


@pytest.mark.parametrize(
    ("labelled", "other", "words"),
    [
        (folders("cat", "dog"), folders("cat"), "data.validation: its classes .*: it lacks dog"),
        (folders("cat"), folders("cat", "dog"), "it also has dog"),
        (folders("cat", "cow"), folders("cat", "dog"), "it lacks cow and it also has dog"),
        (folders("cat", "dog"), parquet("dog", "cat"), "numbers its classes differently from data.labelled: dog, cat;"),
        (
            folders("cat", "dog"),
            parquet(),
            r"data.labelled names its classes \(cat, dog\), but the labels of data.valid",
        ),
        (
            parquet(),
            folders("cat", "dog"),
            r"data.validation names its classes \(cat, dog\), but the labels of data.label",
        ),
        (folders("1", "2"), csv("1"), r"data.labelled names its classes \(1, 2\)"),
    ],
)
def test_classes_that_differ_are_named(tmp_path: Path, labelled: Make, other: Make, words: str) -> None:
    with pytest.raises(InputError, match=words):
        names_of(tmp_path, labelled, other)


def test_the_count_comes_from_the_names_where_it_is_not_given(tmp_path: Path, data: Data) -> None:
    unknown = data.model_copy(update={"classes": None})
    assert class_count(unknown, ("cat", "dog")) == 2
    assert class_count(data, None) == data.classes
    with pytest.raises(InputError, match=r"data\.classes: missing; the labels of data\.labelled are numbers"):
        class_count(unknown, None)
    with pytest.raises(InputError, match=r"data\.classes = 3, but data\.labelled has 2: cat, dog"):
        names_of(tmp_path, folders("cat", "dog"), classes=3)


def test_names_of_a_larger_set_are_not_those_of_the_run(tmp_path: Path) -> None:
    assert names_of(tmp_path, parquet("cat", "dog", "cow"), classes=2) is None
