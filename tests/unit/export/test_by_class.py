"""Images sorted into a folder per class: read back by torchvision, by datasets and by ray_ns itself."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from support.in_process import Call
from support.labelled import Truth, labelled_run
from support.shards import KINDS, write_as

from ray_ns.corpora.corpus import Corpus
from ray_ns.errors import IntegrityError
from ray_ns.export.by_class import images_of
from ray_ns.store.objects import LocalStore

Pictures = Callable[..., list[bytes]]
Made = tuple[LocalStore, Truth, Corpus, list[bytes]]

TORCHVISION = """
import json, sys
from torchvision.datasets import ImageFolder
found = ImageFolder(sys.argv[1])
print(json.dumps({"classes": found.classes, "images": [[path, found.classes[label]] for path, label in found.samples]}))
"""
DATASETS = """
import json, sys
from datasets import disable_progress_bars, load_dataset
disable_progress_bars()
(found,) = load_dataset(sys.argv[1], cache_dir=sys.argv[2]).values()
names = found.features["label"].names
paths = found.with_format("arrow")[:]["image"].combine_chunks().field("path").to_pylist()
print(json.dumps({"classes": names, "images": [[path, names[it]] for path, it in zip(paths, found["label"])]}))
"""


def outsider(program: str, *words: Path) -> dict[str, list[list[str]]]:
    """What a program prints in a process of its own."""
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, env=env, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def make(tmp_path: Path, pictures: Pictures, kind: str = "folder", count: int = 40) -> Made:
    images = pictures(count)
    pool = write_as(kind, tmp_path / "pool", images, group_rows=9)
    return (*labelled_run(tmp_path / "run", pool), pool, images)


def by_hand(
    truth: Truth, images: list[bytes], names: tuple[str, ...] = ("cat", "dog", "owl")
) -> list[tuple[bytes, str]]:
    """The bytes of each labelled image, with its class."""
    labels = truth.probabilities.argmax(1)
    return sorted((image, names[labels[at]]) for at, image in enumerate(images) if truth.reasons[at] is None)


def in_folders(folder: Path) -> list[tuple[bytes, str]]:
    return sorted((it.read_bytes(), it.parent.name) for it in folder.glob("*/*"))


@pytest.mark.parametrize("kind", KINDS)
def test_each_labelled_image_lies_in_the_folder_of_its_class(
    tmp_path: Path, pictures: Pictures, ray_ns: Call, kind: str
) -> None:
    store, truth, _, images = make(tmp_path, pictures, kind)
    left = ray_ns("labels", store.url, "--by-class", tmp_path / "sorted", "--copy", "-o", tmp_path / "l.parquet")
    assert left.code == 0, left.err
    assert in_folders(tmp_path / "sorted") == by_hand(truth, images)
    assert pq.read_table(tmp_path / "l.parquet").num_rows == 40
    link = ray_ns("labels", store.url, "--by-class", tmp_path / "linked", "--link")
    if kind != "folder":
        assert (link.code, "Use --copy." in link.err, link.err.count("\n")) == (2, True, 1)
        assert not (tmp_path / "linked").exists()
        return
    assert link.code == 0
    assert in_folders(tmp_path / "linked") == by_hand(truth, images)
    assert all(it.is_symlink() for it in (tmp_path / "linked").glob("*/*"))


def test_torchvision_datasets_and_ray_ns_read_it_back(tmp_path: Path, pictures: Pictures, ray_ns: Call) -> None:
    store, truth, pool, images = make(tmp_path, pictures)
    for at in range(20):  # names that datasets would take for a split
        os.rename(tmp_path / f"pool/{at:05d}.png", tmp_path / f"pool/{at:05d}_test_1.png")
    pool = Corpus.scan(pool.root, "image", None)
    store, truth = labelled_run(tmp_path / "again", pool)
    folder = tmp_path / "sorted"
    assert ray_ns("labels", store.url, "--by-class", folder, "--link").code == 0
    wanted = by_hand(truth, images)
    for found in (outsider(TORCHVISION, folder), outsider(DATASETS, folder, tmp_path / "cache")):
        assert found["classes"] == ["cat", "dog", "owl"]
        assert sorted((Path(path).read_bytes(), name) for path, name in found["images"]) == wanted
    corpus = Corpus.scan(str(folder), "image", "label")
    assert corpus.class_names() == ("cat", "dog", "owl")
    read = [
        (image.as_py(), corpus.class_names()[label.as_py()])
        for reader in map(corpus.open, corpus.shards)
        for group in range(len(reader.group_rows))
        for image, label in zip(
            reader.images(group),
            reader.labels().slice(sum(reader.group_rows[:group]), reader.group_rows[group]),
            strict=True,
        )
    ]
    assert sorted(read) == wanted


def test_only_what_is_wanted_and_a_word_on_classes_that_nobody_has(
    tmp_path: Path, pictures: Pictures, ray_ns: Call
) -> None:
    store, truth, *_ = make(tmp_path, pictures)
    left = ray_ns("labels", store.url, "--by-class", tmp_path / "sorted", "--copy", "--min", "1")
    assert left.code == 0
    assert "without a folder: cat, dog, owl." in left.err
    assert not list((tmp_path / "sorted").glob("*/"))
    left = ray_ns("labels", store.url, "--by-class", tmp_path / "chosen", "--copy", "--selected")
    assert len(in_folders(tmp_path / "chosen")) == (truth.copies > 0).sum()


def test_hostile_classes_get_folders_and_a_word(tmp_path: Path, pictures: Pictures, ray_ns: Call) -> None:
    pool = write_as("folder", tmp_path / "pool", pictures(40))
    names = ("../up", "=1+1", "a\nb")
    store, _ = labelled_run(tmp_path / "run", pool, names)
    left = ray_ns("labels", store.url, "--by-class", tmp_path / "out/sorted", "--copy")
    assert left.code == 0
    assert {it.name for it in (tmp_path / "out/sorted").iterdir() if it.is_dir()} == {"_._up", "=1+1", "a_b"}
    assert "'../up': '_._up'" in left.err
    assert sorted(it.name for it in (tmp_path / "out").iterdir()) == ["sorted"]


def test_killed_in_the_middle_the_same_command_goes_on(
    tmp_path: Path, pictures: Pictures, ray_ns: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, truth, _, images = make(tmp_path, pictures, "tar")
    words = ["labels", store.url, "--by-class", tmp_path / "sorted", "--copy"]
    replaced: list[str] = []

    def fail(source: str, target: str) -> None:
        replaced.append(target)
        if len(replaced) == 9:
            raise IntegrityError("killed")
        os.rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        assert ray_ns(*words).code == 4
    before = {it: it.stat().st_mtime_ns for it in (tmp_path / "sorted").glob("*/*.png") if it.name[0] != "."}
    assert len(before) == 8
    assert ray_ns(*words).code == 0
    assert in_folders(tmp_path / "sorted") == by_hand(truth, images), "and nothing else is left"
    assert {it: it.stat().st_mtime_ns for it in before} == before
    assert ray_ns(*words).code == 0, "a third time changes nothing"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--by-class", "full", "--copy"], "is not empty (x)"),
        (["--by-class", "pool/sorted", "--copy"], "lies in the pool"),
        (["--by-class", "s3://b/x", "--copy"], "expected a folder on this machine"),
        (["--by-class", "new"], "give both or neither"),
        (["--by-class", "new", "--copy", "--link"], "give both or neither"),
        (["-o", "l.csv", "--copy"], "give both or neither"),
        ([], "nothing to write"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(
    tmp_path: Path, pictures: Pictures, ray_ns: Call, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    store, *_ = make(tmp_path, pictures, count=5)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").touch()
    monkeypatch.chdir(tmp_path)
    left = ray_ns("labels", store.url, *words)
    assert (left.code, said in left.err, left.err.count("\n")) == (2, True, 1), left.err
    assert sorted(it.name for it in tmp_path.iterdir()) == ["full", "pool", "run"]


def test_a_folder_of_another_asking_is_refused(tmp_path: Path, pictures: Pictures, ray_ns: Call) -> None:
    store, *_ = make(tmp_path, pictures)
    assert ray_ns("labels", store.url, "--by-class", tmp_path / "s", "--copy").code == 0
    left = ray_ns("labels", store.url, "--by-class", tmp_path / "s", "--copy", "--min", "0.9")
    assert (left.code, "holds other labels, or asked for otherwise" in left.err) == (2, True)


def test_a_group_is_read_once_for_all_its_images(tmp_path: Path, pictures: Pictures) -> None:
    *_, pool, images = make(tmp_path, pictures, "plain")
    import numpy as np

    ids = np.array([0, 8, 9, 33, 39])
    assert [(at, it.as_py()) for at, it in images_of(pool, ids)] == [(at, images[it]) for at, it in enumerate(ids)]
