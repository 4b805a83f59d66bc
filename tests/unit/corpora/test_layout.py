"""What lies at a corpus's root is told in one line, or refused where it is not the corpus that is asked for."""

import io
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ray_ns.corpora.corpus import Corpus, count_per_class
from ray_ns.corpora.layout import line, refuse, refuse_to_pack
from ray_ns.errors import InputError


def encoded(kind: str) -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (9, 9), "red").save(sink, kind)
    return sink.getvalue()


JPEG = encoded("JPEG")


def laid(root: Path, *names: str, content: bytes = JPEG) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def told(root: Path, labelled: bool = True, share: float = 0.05) -> str:
    corpus = Corpus.scan(str(root), "image", "label" if labelled else None)
    refuse(corpus, "data.labelled" if labelled else "data.pool", share)
    names = corpus.class_names()
    counts = count_per_class(corpus.labels(len(names)), len(names)) if names else None
    return line("data.x", corpus, counts, names)


def refusal(root: Path, labelled: bool = True) -> str:
    with pytest.raises(InputError) as caught:
        told(root, labelled)
    assert str(caught.value).startswith(f"data.{'labelled' if labelled else 'pool'}: {root}: ")
    return str(caught.value)


CLASSES = ("cat/1.jpg", "cat/2.jpg", "dog/1.jpg")


def test_the_line_has_images_and_classes(tmp_path: Path) -> None:
    assert told(laid(tmp_path, *CLASSES)) == "data.x: 3 images in 2 classes: cat 2, dog 1"
    assert told(tmp_path, labelled=False) == "data.x: 3 images"


def test_of_many_classes_the_first_ten_are_shown(tmp_path: Path) -> None:
    found = told(laid(tmp_path, *(f"c{number:03d}/1.jpg" for number in range(200)), "c199/2.jpg"))
    assert found.startswith("data.x: 201 images in 200 classes: c000 1, c001 1, ")
    assert found.endswith("c009 1 and 190 more (1 to 2 images)")


def test_what_is_passed_over_is_told_by_suffix_with_an_example(tmp_path: Path) -> None:
    laid(tmp_path, *CLASSES)
    laid(tmp_path, "README.md", "cat/a.txt", "cat/b.txt", "train.csv", content=b"x")
    assert told(tmp_path).endswith("; passed over: 2 .txt (cat/a.txt), 1 .csv (train.csv), 1 .md (README.md)")


def test_links_are_told(tmp_path: Path) -> None:
    laid(tmp_path / "out", "1.jpg")
    root = laid(tmp_path / "root", "1.jpg")
    for name, target in {"more": "../out", "again": ".", "gone": "nowhere"}.items():
        (root / name).symlink_to(target)
    assert told(root, labelled=False) == (
        "data.x: 2 images; links followed: 1; links to what is counted already: 1; links that lead nowhere: 1 (gone)"
    )


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP"])
@pytest.mark.parametrize("name", ["dog/0001", "dog/photo.jpg?w=1200&q=80", "dog/image.bak", "dog/a.b.c"])
def test_an_image_without_an_images_name_is_known_by_its_first_bytes(tmp_path: Path, kind: str, name: str) -> None:
    laid(tmp_path, "cat/1.jpg")
    laid(tmp_path, name, content=encoded(kind))
    assert told(tmp_path) == "data.x: 2 images in 2 classes: cat 1, dog 1; 1 images recognised by their first bytes"


def test_a_folder_of_such_images_alone_is_a_corpus(tmp_path: Path) -> None:
    assert told(laid(tmp_path, "1", "2"), labelled=False).startswith("data.x: 2 images; 2 images recognised by")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("part.zip", "1 .zip (part.zip)"),
        ("clip.mp4", "1 .mp4 (clip.mp4)"),
        ("raw/IMG.CR2", "1 .cr2 (raw/IMG.CR2)"),
        ("blob", "1 without suffix (blob)"),
        ("shard.arrow", "1 .arrow (shard.arrow)"),
    ],
)
def test_more_than_a_share_of_files_that_may_be_images_is_refused(tmp_path: Path, name: str, said: str) -> None:
    laid(tmp_path, *(f"{number}.jpg" for number in range(9)))
    laid(tmp_path, name, content=b"x")
    assert f"1 of 10 files are not images that can be read and are passed over: {said}" in refusal(tmp_path, False)
    assert told(tmp_path, labelled=False, share=0.1) == f"data.x: 9 images; passed over: {said}"


def test_notes_beside_images_are_no_reason_to_refuse(tmp_path: Path) -> None:
    laid(tmp_path, "1.jpg")
    laid(tmp_path, "1.xml", "1.json", "LICENSE.txt", content=b"x")
    assert "passed over" in told(tmp_path, labelled=False)


@pytest.mark.parametrize("beside", [None, "wolf/notes.txt", "wolf/a.zip", "wolf/.hidden.jpg"])
def test_a_class_without_an_image_is_refused_by_name(tmp_path: Path, beside: str | None) -> None:
    laid(tmp_path, *CLASSES)
    (tmp_path / "wolf").mkdir()
    if beside:
        laid(tmp_path, beside, content=b"x")
    assert "no image that can be read lies in the class folder wolf. " in refusal(tmp_path)
    if beside != "wolf/a.zip":
        assert told(tmp_path, labelled=False).startswith("data.x: 3 images")


@pytest.mark.parametrize(
    ("folders", "mend"),
    [
        (("train", "val", "test"), "labelled={0}/train validation={0}/val test={0}/test"),
        (("Train", "Validation"), "labelled={0}/Train validation={0}/Validation"),
        (("training", "testing"), "labelled={0}/training test={0}/testing"),
        (("train2017", "val2017"), "labelled={0}/train2017 validation={0}/val2017"),
        (("train", "val", "test", "extra"), "labelled={0}/train validation={0}/val test={0}/test"),
    ],
)
def test_the_splits_of_a_data_set_are_no_classes(tmp_path: Path, folders: Sequence[str], mend: str) -> None:
    laid(tmp_path, *(f"{folder}/{name}" for folder in folders for name in CLASSES))
    assert refusal(tmp_path).endswith(f"Give each its own setting: {mend.format(tmp_path)}")
    assert f"pool={tmp_path}/{folders[0]}" in refusal(tmp_path, labelled=False)


def test_splits_below_the_classes_are_refused(tmp_path: Path) -> None:
    laid(tmp_path, *(f"{label}/{split}/1.jpg" for label in ("cat", "dog") for split in ("train", "test")))
    assert "test, train lie below cat, dog" in refusal(tmp_path)


def test_a_class_may_be_called_as_a_split_is(tmp_path: Path) -> None:
    assert "bus 1, test 1, train 1" in told(laid(tmp_path, "bus/1.jpg", "train/1.jpg", "test/1.jpg"))


@pytest.mark.parametrize("where", ["", "data/"])
def test_the_shards_of_several_splits_are_not_one_corpus(tmp_path: Path, where: str) -> None:
    table = pa.table({"image": [JPEG], "label": [0]})
    (tmp_path / where).mkdir(exist_ok=True)
    for split in ("train", "validation", "test"):
        pq.write_table(table, tmp_path / f"{where}{split}-00000-of-00001.parquet")
    for labelled in (True, False):
        found = refusal(tmp_path, labelled)
        assert f"{where}test-00000-of-00001.parquet" in found
        assert "into a folder of its own" in found


def test_shards_below_a_folder_of_each_split_are_not_one_corpus(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        pq.write_table(pa.table({"image": [JPEG], "label": [0]}), tmp_path / split / "0.parquet")
    assert refusal(tmp_path).endswith(f"labelled={tmp_path}/train test={tmp_path}/test")


def test_a_set_unpacked_one_folder_deeper_names_the_folder_to_give(tmp_path: Path) -> None:
    laid(tmp_path, *(f"dataset/{name}" for name in CLASSES))
    assert refusal(tmp_path).endswith(f"(cat, dog). If those are the classes, give labelled={tmp_path}/dataset")
    assert told(tmp_path, labelled=False) == "data.x: 3 images"


def test_names_of_classes_are_compared_in_one_form(tmp_path: Path) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    laid(tmp_path / "one", f"{composed}/1.jpg", "the/1.jpg")
    laid(tmp_path / "other", f"{decomposed}/1.jpg", f"{composed}/2.jpg", "the/1.jpg")
    one, other = (Corpus.scan(str(tmp_path / name), "image", "label") for name in ("one", "other"))
    assert one.class_names() == other.class_names() == (composed, "the")
    assert [it.tolist() for it in other.labels(2)] == [[0, 0, 1]]
    assert other.open(other.shards[0]).images(0).to_pylist() == [JPEG] * 3


def packable(root: Path) -> None:
    refuse_to_pack(Corpus.scan(str(root), "image", None), 0.05)


def test_what_is_packed_may_lie_in_any_folders(tmp_path: Path) -> None:
    laid(tmp_path, "holiday/2024/1.jpg", "holiday/2025/1.jpg")
    (tmp_path / "empty").mkdir()
    packable(tmp_path)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["train/1.jpg", "val/1.jpg"], r"train, val are the parts .* and not one corpus\. Ingest each by itself\."),
        (["1.jpg", "a.zip"], r"SRC: .*1 \.zip \(a\.zip\).*or raise --max-passed-over"),
    ],
)
def test_parts_of_a_data_set_and_archives_are_not_packed_as_if_nothing_were(
    tmp_path: Path, names: list[str], words: str
) -> None:
    for name in names:
        laid(tmp_path, name, content=JPEG if name.endswith("jpg") else b"x")
    with pytest.raises(InputError, match=words):
        packable(tmp_path)
