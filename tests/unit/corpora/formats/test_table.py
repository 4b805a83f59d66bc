"""Labels in a CSV beside the images, however people and programs write it, or the line that is wrong."""

from pathlib import Path

import pytest

from ray_ns.corpora.corpus import Corpus
from ray_ns.corpora.formats.place import Kind
from ray_ns.errors import InputError

IMAGES = ("IMG_0.jpg", "IMG_1.jpg", "sub/IMG_2.png")
WANTED = {"IMG_0.jpg": "cat", "IMG_1.jpg": "dog", "sub/IMG_2.png": "cat"}


def scan(root: Path, text: str | bytes = "", name: str = "labels.csv", images: tuple[str, ...] = IMAGES, **columns):
    for image in images:
        (root / image).parent.mkdir(parents=True, exist_ok=True)
        (root / image).write_bytes(image.encode())
    if text:
        (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return Corpus.scan(str(root), columns.get("image", "image"), columns.get("label", "label"))


def labels(corpus: Corpus) -> dict[str, str]:
    names = corpus.class_names()
    assert names is not None
    (shard,) = corpus.shards
    reader = corpus.open(shard)
    return {
        reader.where(row).removeprefix(f"{corpus.root}/"): names[label]
        for row, label in enumerate(reader.labels().to_pylist())
    }


PLAIN = "file,label\nIMG_0.jpg,cat\nIMG_1.jpg,dog\nsub/IMG_2.png,cat\n"
WRITTEN = {
    "plain": PLAIN,
    "windows line ends": PLAIN.replace("\n", "\r\n"),
    "old mac line ends": PLAIN.replace("\n", "\r"),
    "semicolons": PLAIN.replace(",", ";"),
    "tabs": PLAIN.replace(",", "\t"),
    "bars": PLAIN.replace(",", "|"),
    "excel's first line": "sep=;\n" + PLAIN.replace(",", ";"),
    "utf-8 with a mark": b"\xef\xbb\xbf" + PLAIN.encode(),
    "utf-16": PLAIN.encode("utf-16"),
    "utf-16, the other end first": b"\xfe\xff" + PLAIN.encode("utf-16-be"),
    "blank lines": PLAIN.replace("\n", "\n\n") + "\n,\n",
    "spaces": PLAIN.replace(",", " , "),
    "more columns": "who,file,label,when\n" + "\n".join(f"me,{line},now" for line in PLAIN.splitlines()[1:]),
    "quoted": 'file,label\n"IMG_0.jpg","cat"\n"IMG_1.jpg","dog"\n"sub/IMG_2.png","cat"\n',
    "other case": PLAIN.replace("file,label", "File,LABEL"),
    "hugging face": PLAIN.replace("file,", "file_name,"),
    "kaggle": "id,label\nIMG_0,cat\nIMG_1,dog\nsub/IMG_2,cat\n",
    "names alone": "image_id,class\nIMG_0,cat\nIMG_1.jpg,dog\nIMG_2,cat\n",
    "a dot first": PLAIN.replace("IMG_0", "./IMG_0"),
    "backslashes": PLAIN.replace("sub/", "sub\\"),
    "from above": PLAIN.replace("sub/", "data/set/sub/").replace("\nIMG", "\ndata/{root}/IMG"),
    "from the root": PLAIN.replace("sub/", "/home/u/sub/").replace("\nIMG", "\n/home/u/{root}/IMG"),
    "from another drive": PLAIN.replace("sub/", "C:\\u\\sub\\").replace("\nIMG", "\nC:\\{root}\\IMG"),
}


@pytest.mark.parametrize("text", WRITTEN.values(), ids=WRITTEN)
def test_a_table_is_read_however_it_is_written(tmp_path: Path, text: str | bytes) -> None:
    if isinstance(text, str):
        text = text.replace("{root}", tmp_path.name)
    assert labels(scan(tmp_path, text)) == WANTED


@pytest.mark.parametrize("name", ["labels.csv", "metadata.csv", "train.csv", "Labels.CSV", "trainLabels.tsv"])
def test_a_table_may_have_any_name(tmp_path: Path, name: str) -> None:
    corpus = scan(tmp_path, PLAIN, name)
    assert (corpus.kind, labels(corpus)) == (Kind.CSV, WANTED)
    assert corpus.labels_from == f"{name} (columns file and label)"
    assert not corpus.found.passed_over


def test_columns_are_those_that_are_asked_for(tmp_path: Path) -> None:
    text = "file,label,photo,breed\nx,y,IMG_0,cat\nx,y,IMG_1,dog\nx,y,IMG_2,cat\n"
    corpus = scan(tmp_path, text, image="photo", label="breed")
    assert labels(corpus) == WANTED
    assert corpus.labels_from == "labels.csv (columns photo and breed)"
    with pytest.raises(InputError, match=r"line 2: no file 'x'"):
        scan(tmp_path, text)


def test_names_are_compared_in_one_unicode_form(tmp_path: Path) -> None:
    decomposed, composed = "cafe\u0301", "caf\u00e9"
    corpus = scan(
        tmp_path,
        f"file,label\n{composed}.jpg,{decomposed}\n2.jpg,{composed}\n",
        images=(f"{decomposed}.jpg", "2.jpg"),
    )
    assert labels(corpus) == {f"{decomposed}.jpg": composed, "2.jpg": composed}


@pytest.mark.parametrize("name", ["train.csv", "annotations.csv"])
def test_folders_are_the_classes_where_a_table_is_called_anything(tmp_path: Path, name: str) -> None:
    corpus = scan(tmp_path, "file,label\ncat/1.jpg,x\n", name, images=("cat/1.jpg", "dog/1.jpg"))
    assert corpus.class_names() == ("cat", "dog")
    assert corpus.found.passed_over == (("csv", 1, name),)


def test_a_table_of_labels_goes_before_folders_and_other_tables(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(PLAIN)
    assert scan(tmp_path, PLAIN).labels_from == "labels.csv (columns file and label)"
    folders = scan(tmp_path / "x", "file,label\na/1.jpg,p\nb/1.jpg,q\n", images=("a/1.jpg", "b/1.jpg"))
    assert folders.class_names() == ("p", "q")


def test_a_table_without_labels_is_none(tmp_path: Path) -> None:
    corpus = scan(tmp_path, "file_name,text\na/1.jpg,a cat\n", "metadata.csv", images=("a/1.jpg", "b/1.jpg"))
    assert corpus.class_names() == ("a", "b")


def test_images_that_the_table_does_not_list_are_counted(tmp_path: Path) -> None:
    found = scan(tmp_path, "file,label\nIMG_0.jpg,cat\nIMG_1.jpg,dog\n").found
    assert found.passed_over == (("png", 1, "sub/IMG_2.png"),)
    assert found.overlooked() == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("IMG_0.jpg,cat\nIMG_1.jpg,dog\n", "found the columns IMG_0.jpg, cat; expected one of files (file, file_name"),
        ("photo,breed\nIMG_0.jpg,cat\n", "Name them (data.image_column, data.label_column), or write that line"),
        ("file,label\nIMG_0.jpg,cat\nIMG_0,dog\n", "line 3: IMG_0.jpg is listed twice, as 'cat' and as 'dog'"),
        ("file,label\nsub/IMG_0.jpg,cat\n", "line 2: no file 'sub/IMG_0.jpg'"),
        ("file,label\n/a/b/IMG_0.jpg,cat\n", "line 2: no file '/a/b/IMG_0.jpg'"),
        ("file,label\n../IMG_0.jpg,cat\n", "line 2: no file '../IMG_0.jpg'"),
        ("file,label\n,cat\n", "line 2: no file ''"),
        ('file,label\n"IMG_0.jpg,cat\n', "cannot be read as CSV"),
        ("file,label\nIMG_0.jpg,caf\xe9\n".encode("latin-1"), "save it as CSV UTF-8"),
        (b"\xff\xfea", "cannot be read as CSV"),
        ("file,label\nIMG_0.jpg\n", "line 2: the label of IMG_0.jpg is ''"),
        ("file,label\nIMG_0.jpg,cat\0\n", "line 2: the label of IMG_0.jpg is 'cat"),
        ('file,label\nIMG_0.jpg,"a\nb"\n', "line 3: the label of IMG_0.jpg is"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_with_its_line(tmp_path: Path, text: str | bytes, words: str) -> None:
    with pytest.raises(InputError) as caught:
        scan(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path}/labels.csv")
    assert words in str(caught.value)


def test_a_stem_of_several_files_is_refused_with_them(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"line 2: '1' may be 1\.jpg, 1\.png\. Give the whole path"):
        scan(tmp_path, "id,label\n1,cat\n", images=("1.jpg", "1.png"))
    with pytest.raises(InputError, match=r"'1\.jpg' may be a/1\.jpg, b/1\.jpg"):
        scan(tmp_path / "x", "id,label\n1.jpg,cat\n", images=("a/1.jpg", "b/1.jpg"))


def test_several_tables_that_fit_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(PLAIN)
    with pytest.raises(InputError, match=r"a\.csv, b\.csv each have a column of files and one of labels\. Keep one"):
        scan(tmp_path, PLAIN, "b.csv")


def test_kaggles_table_of_test_images_has_no_labels_and_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("id\nIMG_0\n")
    corpus = scan(tmp_path, PLAIN, "train.csv")
    assert labels(corpus) == WANTED
    assert corpus.found.passed_over == (("csv", 1, "test.csv"),)
