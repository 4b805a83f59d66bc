"""Folders of image files: classes by name, shards that never move, and refusals that name the file."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ray_ns.corpora.corpus import Corpus, Shard
from ray_ns.corpora.formats import folder
from ray_ns.corpora.formats.place import Kind
from ray_ns.errors import InputError


def write(root: Path, *paths: str) -> Path:
    """Files whose bytes are their own paths."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(path.encode())
    return root


def scan(root: Path, label: str | None = None, known: tuple[Shard, ...] = (), names=None, compared=False) -> Corpus:
    return Corpus.scan(str(root), "image", label, known, names, compared)


def paths(corpus: Corpus) -> list[str]:
    readers = [corpus.open(shard) for shard in corpus.shards]
    return [one.decode() for it in readers for at in range(len(it.group_rows)) for one in it.images(at).to_pylist()]


def test_a_pool_is_every_image_below_in_the_order_of_paths(tmp_path: Path) -> None:
    write(tmp_path, "b.jpg", "a/deep/er/1.PNG", "c.tiff", "notes.txt", ".hidden/x.jpg", "._d.jpg", "__MACOSX/e.jpg")
    corpus = scan(tmp_path)
    assert corpus.kind is Kind.FOLDER
    assert paths(corpus) == ["a/deep/er/1.PNG", "b.jpg", "c.tiff"]
    assert corpus.open(corpus.shards[0]).where(1) == f"{tmp_path}/b.jpg"
    assert corpus.class_names() is None


def test_class_folders_give_sorted_names_and_their_numbers(tmp_path: Path) -> None:
    write(tmp_path, "dog/2.jpg", "cat/x/1.jpg", "Ant/3.jpg", "dog/1.jpg")
    corpus = scan(tmp_path, "label")
    assert corpus.class_names() == ("Ant", "cat", "dog")
    assert paths(corpus) == ["Ant/3.jpg", "cat/x/1.jpg", "dog/1.jpg", "dog/2.jpg"]
    assert corpus.labels(3)[0].tolist() == [0, 1, 2, 2]


def test_class_folders_that_are_numbers_are_in_the_order_of_numbers(tmp_path: Path) -> None:
    write(tmp_path, *(f"{label}/0.jpg" for label in range(12)))
    assert scan(tmp_path, "label").class_names() == tuple(map(str, range(12)))


def test_another_corpus_takes_the_numbers_of_the_names_it_is_given(tmp_path: Path) -> None:
    write(tmp_path, "dog/1.jpg", "fox/1.jpg")
    assert scan(tmp_path, "label", names=("fox", "dog")).labels(2)[0].tolist() == [1, 0]
    with pytest.raises(InputError, match=r"fox/1\.jpg: class 'fox' is none of the labelled corpus, which has cat, dog"):
        scan(tmp_path, "label", names=("cat", "dog")).labels(2)


def test_a_csv_gives_numbers_or_names(tmp_path: Path) -> None:
    write(tmp_path, "x/1.jpg", "2.jpg", "unlisted.jpg")
    (tmp_path / "labels.csv").write_text("\ufefffile,label,by\nx/1.jpg,3,me\n./2.jpg,0,you\n")
    corpus = scan(tmp_path, "label")
    assert (corpus.kind, corpus.class_names()) == (Kind.CSV, None)
    assert paths(corpus) == ["2.jpg", "x/1.jpg"]
    assert corpus.labels(4)[0].tolist() == [0, 3]
    with pytest.raises(InputError, match=r"x/1\.jpg: label is 3; expected 0 \.\. 2"):
        corpus.labels(3)
    assert paths(scan(tmp_path)) == ["2.jpg", "unlisted.jpg", "x/1.jpg"], "a pool is all images"
    (tmp_path / "labels.csv").write_text('file,label\nx/1.jpg,"dog, wild"\n2.jpg,cat\n')
    assert scan(tmp_path, "label").class_names() == ("cat", "dog, wild")
    assert scan(tmp_path, "label").labels(2)[0].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("photo,label\n1.jpg,0\n", "found the columns photo, label; expected one of files (file, file_name"),
        ("", "found the columns none"),
        ("file,label\n", "lists no file"),
        ("file,label\n1.jpg,0\nnone.jpg,1\n", "line 3: no file 'none.jpg'"),
        ("file,label\n1.jpg,0\n1.jpg,1\n", "line 3: 1.jpg is listed twice"),
        ("file,label\n1.jpg\n", "line 2: the label of 1.jpg is ''"),
        ("file,label\n1.jpg,0\n2.jpg,cat\n", "some labels are numbers (0), some are names (cat)"),
        ("file,label\n../1.jpg,0\n", "line 2: no file '../1.jpg'"),
        ("file,label\n1.jpg,99999999999999999999\n", "line 2: the label of 1.jpg is '99999999999999999999'"),
        (b"file,label\n\xff.jpg,0\n", "cannot be read as CSV"),
    ],
)
def test_a_csv_that_does_not_fit_is_refused_with_its_line(tmp_path: Path, text: str | bytes, words: str) -> None:
    write(tmp_path, "1.jpg", "2.jpg")
    (tmp_path / "labels.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError) as caught:
        scan(tmp_path, "label")
    assert str(caught.value).startswith(f"{tmp_path}/labels.csv")
    assert words in str(caught.value)


def test_an_image_in_no_class_folder_is_refused_by_name(tmp_path: Path) -> None:
    write(tmp_path, "cat/1.jpg", "stray.jpg")
    with pytest.raises(InputError, match=r"stray\.jpg lies in no class folder"):
        scan(tmp_path, "label")


def test_shards_are_runs_of_files_that_new_files_never_move(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "SHARD_FILES", 4)
    monkeypatch.setattr(folder, "GROUP_ROWS", 3)
    write(tmp_path, *(f"{number}.jpg" for number in range(6)))
    first = scan(tmp_path)
    assert [first.open(shard).group_rows for shard in first.shards] == [[3, 1], [2]]
    write(tmp_path, "00.jpg", "9.jpg")
    again = scan(tmp_path, known=first.shards)
    assert again.shards[:2] == first.shards
    assert [(it.ordinal, it.path) for it in again.shards[2:]] == [(2, "00.jpg .. 9.jpg")]
    assert paths(again) == [*(f"{number}.jpg" for number in range(6)), "00.jpg", "9.jpg"]


def _touch(path: Path) -> None:
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1_000_000_000))


@pytest.mark.parametrize(
    ("hurt", "word"),
    [(lambda path: path.write_bytes(b"other"), "has changed"), (_touch, "has changed"), (Path.unlink, "is gone")],
)
def test_a_known_file_changed_or_gone_is_refused_by_name(
    tmp_path: Path, hurt: Callable[[Path], None], word: str
) -> None:
    write(tmp_path, "a/1.jpg", "a/2.jpg", "b/3.jpg")
    known = scan(tmp_path, "label").shards
    hurt(tmp_path / "a/2.jpg")
    with pytest.raises(InputError, match=rf"a/2\.jpg {word}"):
        scan(tmp_path, "label", known)


@pytest.mark.parametrize("label", [None, "label"])
def test_a_known_file_that_was_touched_is_told_to_whoever_compares(tmp_path: Path, label: str | None) -> None:
    known = scan(write(tmp_path, "a/1.jpg", "a/2.jpg", "b/3.jpg"), label)
    _touch(tmp_path / "a/2.jpg")
    _touch(tmp_path / "b/3.jpg")
    again = scan(tmp_path, label, known.shards, compared=True)
    assert again == known
    assert again.shards == known.shards
    assert tuple(it[:2] for it in again.touched) == ((0, "a/2.jpg"), (0, "b/3.jpg"))
    assert paths(again) == paths(known)
    (tmp_path / "b/3.jpg").write_bytes(b"other")
    with pytest.raises(InputError, match=r"b/3\.jpg has changed \(7 -> 5 bytes\)"):
        scan(tmp_path, label, known.shards, compared=True)


def test_a_label_that_changed_under_a_run_is_refused_by_name(tmp_path: Path) -> None:
    write(tmp_path, "1.jpg", "2.jpg")
    (tmp_path / "labels.csv").write_text("file,label\n1.jpg,0\n2.jpg,1\n")
    known = scan(tmp_path, "label").shards
    (tmp_path / "labels.csv").write_text("file,label\n1.jpg,0\n2.jpg,0\n")
    for hurt in (lambda _: None, _touch):
        hurt(tmp_path / "2.jpg")
        with pytest.raises(InputError, match=r"2\.jpg has changed \(its label\)"):
            scan(tmp_path, "label", known, compared=True)


def test_a_new_class_folder_does_not_number_the_known_ones_anew(tmp_path: Path) -> None:
    write(tmp_path, "cat/1.jpg", "dog/1.jpg")
    known = scan(tmp_path, "label").shards
    write(tmp_path, "ant/1.jpg")
    assert scan(tmp_path, "label", known).names == ("cat", "dog")


@pytest.mark.parametrize("hurt", [Path.unlink, lambda path: path.write_bytes(b"longer than it was")])
def test_a_file_that_changes_while_the_run_reads_is_refused_by_name(
    tmp_path: Path, hurt: Callable[[Path], None]
) -> None:
    corpus = scan(write(tmp_path, "1.jpg"))
    hurt(tmp_path / "1.jpg")
    with pytest.raises(InputError, match=rf"{tmp_path}/1\.jpg"):
        paths(corpus)


def test_too_many_files_are_refused_with_the_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "MAX_FILES", 2)
    write(tmp_path, "1.jpg", "2.jpg", "3.jpg")
    with pytest.raises(InputError, match=r"3 image files; .* up to 2\. Pack it first: ray-ns ingest"):
        scan(tmp_path)


@pytest.mark.parametrize("name", ["a\nb.jpg", "a\tb.jpg"])
def test_a_name_that_is_no_line_of_text_is_refused(tmp_path: Path, name: str) -> None:
    write(tmp_path, name)
    with pytest.raises(InputError, match="has a tab or a line break in its name"):
        scan(tmp_path)


def test_a_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "1.jpg")
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.jpg"))).write_bytes(b"x")
    with pytest.raises(InputError, match=r"xff\.jpg': the name is not UTF-8"):
        scan(tmp_path)


def test_names_as_people_write_them_are_read(tmp_path: Path) -> None:
    names = [
        "Screenshot 9.41\u202fAM.png",
        "été 1.JPG",
        "犬/柴 犬.jpg",
        "a\rb.jpg",
        "a\u2028b.jpg",
        "x #1&=?.png",
        "\U0001fae9.gif",
    ]
    write(tmp_path, *names)
    corpus = scan(tmp_path)
    assert sorted(paths(corpus)) == sorted(names)
    assert scan(tmp_path, known=corpus.shards) == corpus


def test_files_survive_the_text_they_are_written_down_as() -> None:
    files = [folder.File("a b/ü.jpg", 3, 2**62, "dog, wild"), folder.File("1.jpg", 0, 0, "")]
    assert folder.unpack(folder.pack(files)) == files
