"""Tars are read as they lie; whatever is not a whole, plain archive of samples is refused by the member's name."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ray_ns.corpora.corpus import Corpus
from ray_ns.corpora.formats import tar
from ray_ns.errors import InputError


def write(path: Path, members: list[tuple[str, bytes]], style: int = tarfile.USTAR_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=style) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def scan(folder: Path, label: str | None = "label") -> Corpus:
    return Corpus.scan(str(folder), "image", label)


def images(corpus: Corpus) -> list[bytes]:
    readers = [corpus.open(shard) for shard in corpus.shards]
    return [one for it in readers for group in range(len(it.group_rows)) for one in it.images(group).to_pylist()]


def refusal(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        scan(folder)
    assert str(caught.value).startswith(f"{folder}/a.tar: ")
    return str(caught.value)


@pytest.mark.parametrize("style", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_samples_of_every_dialect_are_read_with_labels_and_long_names(tmp_path: Path, style: int) -> None:
    long = "ü" * 60 if style == tarfile.USTAR_FORMAT else "ü" * 120  # ustar has room for 100 bytes behind a prefix
    folder = "deep/" * (10 if style == tarfile.USTAR_FORMAT else 60)
    name = folder + (long[:40] if style == tarfile.USTAR_FORMAT else long)
    members = [("./x/0001.JPG", b"one" * 400), ("./x/0001.cls", b"2\n"), (f"{name}.png", b"two"), (f"{name}.cls", b"0")]
    write(tmp_path / "a.tar", members, style)
    corpus = scan(tmp_path)
    assert images(corpus) == [b"one" * 400, b"two"]
    assert corpus.labels(3)[0].tolist() == [2, 0]
    assert corpus.open(corpus.shards[0]).where(1) == f"{tmp_path}/a.tar: {name}.png"


def test_members_that_are_no_images_are_passed_over(tmp_path: Path) -> None:
    members = [
        ("0.json", b"{}" * 90_000),
        ("0.jpg", b"zero"),
        ("._1.jpg", b"mac"),
        ("1.txt", b"t"),
        ("1.seg.png", b"one"),
    ]
    write(tmp_path / "a.tar", [*members, ("README", b"r"), ("2.webp", b"")])
    assert images(scan(tmp_path, None)) == [b"zero", b"one", b""]


@pytest.mark.parametrize("size", [1, 3000], ids=["each by itself", "a run at once"])
def test_a_tar_is_read_by_runs_of_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(tar, "GROUP_ROWS", 3)
    far = [("between.json", b" " * 5000)]
    members = [(f"{number}.jpg", str(number).encode() * size) for number in range(8)]
    write(tmp_path / "a.tar", [*members[:4], *far, *members[4:]])
    corpus = scan(tmp_path, None)
    assert corpus.open(corpus.shards[0]).group_rows == [3, 3, 2]
    assert images(corpus) == [data for _, data in members]


def test_an_empty_tar_holds_no_image(tmp_path: Path) -> None:
    write(tmp_path / "a.tar", [])
    corpus = scan(tmp_path, None)
    assert corpus.open(corpus.shards[0]).group_rows == []


def test_an_image_without_a_label_is_refused_where_labels_are_asked_for(tmp_path: Path) -> None:
    write(tmp_path / "a.tar", [("0.jpg", b"x"), ("0.cls", b"1"), ("1.jpg", b"y")])
    with pytest.raises(InputError, match=r"a\.tar: 1\.jpg: label is None; expected 0 \.\. 2"):
        scan(tmp_path).labels(3)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([("0.jpg", b"x"), ("0.jpg", b"y")], "0.jpg and 0.jpg have the same key, 0"),
        ([("a/0.jpg", b"x"), ("a/0.png", b"y")], "a/0.png and a/0.jpg have the same key, a/0"),
        ([("0.jpg", b"x"), ("0.cls", b"1"), ("0.cls", b"1")], "0.cls is there twice"),
        ([("0.jpg", b"x"), ("1.cls", b"1")], "1.cls is the label of no image"),
        ([("0.jpg", b"x"), ("0.cls", b"a\0b")], "0.cls holds b'a\\x00b'. Expected a class number"),
        ([("0.jpg", b"x"), ("0.cls", b"a\nb")], "0.cls holds b'a\\nb'. Expected a class number"),
        ([("0.jpg", b"x"), ("0.cls", b"\xff\xfe")], "0.cls holds b'\\xff\\xfe'. Expected a class number"),
        ([("0.jpg", b"x"), ("0.cls", b"1"), ("1.jpg", b"x"), ("1.cls", b"-1")], "holds numbers (1) and names ('-1')"),
        ([("0.jpg", b"x"), ("0.cls", b" " * 600)], "0.cls holds b'"),
        ([("0.jpg", b"x"), ("0.cls", b"1" + b" " * 600)], "0.cls holds b'1"),
        ([("0.jpg", b"x"), ("0.cls", b"9" * 20)], "0.cls holds b'999"),
        ([("0.jpg", b"x"), ("0.cls", b"")], "0.cls holds b''"),
        ([("/etc/0.jpg", b"x")], "/etc/0.jpg points out of the tar"),
        ([("a/../../0.jpg", b"x")], "a/../../0.jpg points out of the tar"),
    ],
)
def test_samples_that_do_not_fit_together_are_refused_by_name(tmp_path: Path, members: list, words: str) -> None:
    write(tmp_path / "a.tar", members)
    assert words in refusal(tmp_path)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (tarfile.SYMTYPE, "1.jpg is a symbolic link"),
        (tarfile.LNKTYPE, "1.jpg is a hard link"),
        (tarfile.CHRTYPE, "1.jpg is a device"),
        (tarfile.BLKTYPE, "1.jpg is a device"),
        (tarfile.FIFOTYPE, "1.jpg is a pipe"),
    ],
)
def test_members_that_are_not_plain_files_are_refused_by_name(tmp_path: Path, kind: bytes, words: str) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("folder/"))
        info = tarfile.TarInfo("1.jpg")
        info.type, info.linkname = kind, "../../etc/passwd"
        archive.addfile(info)
    assert words in refusal(tmp_path)


def _cut_in_member(data: bytes) -> bytes:
    return data[:700]


def _cut_at_member(data: bytes) -> bytes:
    return data[:1024]


def _flip(data: bytes) -> bytes:
    return data[:1030] + bytes([data[1030] ^ 1]) + data[1031:]


def _twice(data: bytes) -> bytes:
    return data + data


def _with_header(data: bytes, begin: int, value: bytes) -> bytes:
    """The first header changed, with a checksum that fits."""
    header = bytearray(data[:512])
    header[begin : begin + len(value)] = value
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + data[512:]


def _negative(data: bytes) -> bytes:
    return _with_header(data, 124, b"-0000001000\0")


def _unknown(data: bytes) -> bytes:
    return _with_header(data, 156, b"M")


def _text(data: bytes) -> bytes:
    return b"not a tar" * 200


@pytest.mark.parametrize(
    ("hurt", "words"),
    [
        (_cut_in_member, "0.jpg has 300 bytes, the tar ends after 188"),
        (_twice, "goes on after the end mark"),
        (_negative, "byte 0 is no header of a tar"),
        (_unknown, "0.jpg is of the unknown kind b'M'"),
        (_cut_at_member, "byte 1024 should be a header or the end mark"),
        (_flip, "byte 1024 is no header of a tar"),
        (_text, "byte 0 is no header of a tar"),
    ],
)
def test_a_damaged_tar_is_refused_rather_than_read_as_a_shorter_one(
    tmp_path: Path, hurt: Callable[[bytes], bytes], words: str
) -> None:
    path = write(tmp_path / "a.tar", [("0.jpg", b"x" * 300), ("1.jpg", b"y" * 300)])
    path.write_bytes(hurt(path.read_bytes()))
    assert words in refusal(tmp_path)


@pytest.mark.parametrize("label", [None, "label"])
@pytest.mark.parametrize(
    "extra", [("0.cls", b"3"), ("0.json", b'{"label": "cat", "x": [1, {"y": null}]}'), ("0.txt", b"cat")]
)
def test_no_mutation_of_a_tar_raises_anything_but_a_refusal(
    tmp_path: Path, label: str | None, extra: tuple[str, bytes]
) -> None:
    import numpy as np

    members = [("p" * 120 + ".jpg", b"x" * 700), ("0.jpg", b"y" * 300), extra]
    whole = write(tmp_path / "whole" / "a.tar", members, tarfile.PAX_FORMAT).read_bytes()
    rng = np.random.default_rng(0)
    outcomes = set()
    for number in range(400):
        data = bytearray(whole)
        for _ in range(int(rng.integers(1, 4))):
            data[int(rng.integers(0, 4096))] = int(rng.integers(0, 256))
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "a.tar").write_bytes(data)
        try:
            corpus = scan(folder, label)
            images(corpus)
            if label:
                corpus.labels(10)
            outcomes.add("read")
        except InputError:
            outcomes.add("refused")
    assert outcomes == ({"read", "refused"} if label is None else {"refused"})  # an image has no label


@pytest.mark.parametrize(
    "record",
    [
        b"size=" + b"9" * 5000,
        b"size=" + b"9" * 19,
        b"size=-5",
        b"size=1e3",
        "size=٣".encode(),
        b"size=\xff",
        b"GNU.sparse.major=1",
        b"path=\xff\xfe",
    ],
)
def test_a_pax_header_that_lies_is_one_line(tmp_path: Path, record: bytes) -> None:
    text = next(b"%d %s\n" % (size, record) for size in range(9000) if len(b"%d %s\n" % (size, record)) == size)
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, len(text)
    member = tarfile.TarInfo("0.jpg")
    member.size = 3
    blocks = [header.tobuf(), text.ljust(-(-len(text) // 512) * 512, b"\0"), member.tobuf(), b"abc".ljust(512, b"\0")]
    (tmp_path / "a.tar").write_bytes(b"".join(blocks) + bytes(1024))
    refusal(tmp_path)


@pytest.mark.parametrize(
    "size", [b"\x80" + b"\xff" * 11, b"\xff" * 12, b"\x80" + bytes(3) + b"\x7f" * 8, b"77777777777\0"]
)
def test_a_size_that_no_tar_can_have_is_one_line(tmp_path: Path, size: bytes) -> None:
    path = write(tmp_path / "a.tar", [("0.jpg", b"x" * 300)])
    path.write_bytes(_with_header(path.read_bytes(), 124, size))
    refusal(tmp_path)


def labelled_as(folder: Path) -> list[str | int]:
    corpus = scan(folder)
    names = corpus.class_names()
    numbers = [label for part in corpus.labels(100) for label in part.tolist()]
    return [names[label] for label in numbers] if names else numbers


CAPTION = (b"a long caption of a photograph, " * 9, b"x" * 70_000)


@pytest.mark.parametrize(
    ("members", "found"),
    [
        ([("0.cls", b"owl\n"), ("1.cls", b"cat")], ["owl", "cat"]),
        ([("0.cls", b"7"), ("1.cls", b"0"), ("0.json", b"not json"), ("0.txt", CAPTION[0])], [7, 0]),
        ([("0.json", b'{"label": 3}'), ("1.json", b'{"label": 0}'), ("0.txt", CAPTION[1])], [3, 0]),
        ([("0.json", b'{"cls": "owl"}'), ("1.json", b'{"label": "cat", "cls": 5}')], ["owl", "cat"]),
        ([("0.json", b'{"label": 2.0}'), ("1.json", b'{"label": "1"}')], [2, 1]),
        ([("0.json", b'{"caption": "a"}'), ("1.json", b"{}"), ("0.txt", b"owl"), ("1.txt", b"cat")], ["owl", "cat"]),
        ([("0.txt", "grüne Eule".encode()), ("1.txt", b"\xef\xbb\xbfcat")], ["grüne Eule", "cat"]),
        ([("0.cls", b"1"), ("1.cls", b"0"), ("9.json", b'{"label": 3}')], [1, 0]),
    ],
)
def test_labels_are_read_from_cls_then_json_then_txt(tmp_path: Path, members: list, found: list) -> None:
    write(tmp_path / "a.tar", [("0.jpg", b"x"), ("1.jpg", b"y"), *members])
    assert labelled_as(tmp_path) == found


@pytest.mark.parametrize(
    "data",
    [
        b"not json",
        b"[1]",
        b"7",
        b'{"label": [1]}',
        b'{"label": {"a": 1}}',
        b'{"label": true}',
        b'{"label": 1.5}',
        b'{"label": NaN}',
        b'{"label": -1}',
        b'{"label": ""}',
        b'{"label": %s}' % (b"9" * 5000),
        b'{"label": 1e400}',
        b'{"label": "%s"}' % (b"x" * 101),
        b'{"label": "a\\u0000b"}',
        b"[" * 100_000,
        b'{"label": ' * 100_000,
        b"\xff\xfe{",
        b" " * (1 << 20) + b"{}",
    ],
)
def test_a_json_label_that_is_no_class_is_one_line(tmp_path: Path, data: bytes) -> None:
    write(tmp_path / "a.tar", [("0.jpg", b"x"), ("0.json", data)])
    assert "0.json holds b" in refusal(tmp_path)


def test_captions_are_no_labels(tmp_path: Path) -> None:
    images = [(f"{number}.jpg", b"x") for number in range(40)]
    write(tmp_path / "a.tar", [*images, *((f"{number}.txt", b"photo of %d" % number) for number in range(40))])
    assert ".txt holds 40 different texts for 40 images, such as 'photo of 0'. Are they captions?" in refusal(tmp_path)
    assert len(images) == scan(tmp_path, None).open(scan(tmp_path, None).shards[0]).group_rows[0]
    write(tmp_path / "a.tar", [*images, *((f"{number}.txt", b"photo of %d" % (number % 9)) for number in range(40))])
    assert labelled_as(tmp_path)[:2] == ["photo of 0", "photo of 1"]


@pytest.mark.parametrize("above", ["", "train/", "a/b/"])
def test_folders_in_the_tars_are_classes_below_those_that_all_share(tmp_path: Path, above: str) -> None:
    write(
        tmp_path / "a.tar", [(f"{above}cat/0.jpg", b"x"), (f"{above}dog/deep/0.jpg", b"x"), (f"{above}dog/1.jpg", b"y")]
    )
    write(tmp_path / "b.tar", [(f"./{above}dog/0.jpg", b"x"), (f"./{above}owl/0.jpg", b"y")])
    assert labelled_as(tmp_path) == ["cat", "dog", "dog", "dog", "owl"]


def test_a_folder_that_all_share_and_is_called_as_a_class_is_none(tmp_path: Path) -> None:
    write(tmp_path / "a.tar", [("cat/cat/0.jpg", b"x"), ("cat/dog/0.jpg", b"x")])
    assert labelled_as(tmp_path) == ["cat", "dog"]


def test_tars_of_one_class_each_are_its_images(tmp_path: Path) -> None:
    for name in ("n01440764", "n01443537", "n02120079"):
        write(tmp_path / f"{name}.tar", [(f"{name}_{number}.JPEG", b"x") for number in range(2)])
    assert labelled_as(tmp_path) == ["n01440764"] * 2 + ["n01443537"] * 2 + ["n02120079"] * 2
    assert scan(tmp_path, None).class_names() is None


@pytest.mark.parametrize(
    "names",
    [
        ["00000", "00001"],
        ["shard-0007", "shard-0008", "shard-0010"],
        ["a"],
        ["x/a", "y/a"],
        ["c12-00", "c12-01"],
        ["train", "test"],
        ["cat", "Val2"],
    ],
)
def test_shards_without_labels_are_not_classes(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        write(tmp_path / f"{name}.tar", [("0.jpg", b"x")])
    with pytest.raises(
        InputError, match=rf"{len(names)} tars? .*no label\. Expected \.cls or \.json beside each image"
    ):
        scan(tmp_path)


@pytest.mark.parametrize(
    ("begin", "words"),
    [
        (b"\x1f\x8b\x08", "is no tar but gzip. Only a plain tar can be read in places: gzip -dc"),
        (b"\x28\xb5\x2f\xfd", "is no tar but zstd."),
        (b"BZh9", "is no tar but bzip2."),
        (b"\xfd7zXZ\0", "is no tar but xz."),
        (b"PK\3\4", "is no tar but a zip. Unpack it: unzip"),
        (b"7z\xbc\xaf\x27\x1c", "is no tar but 7z."),
        (b"Rar!\x1a\7", "is no tar but rar."),
        (b"PAR1", "is no tar but Parquet."),
        (b"version https://git-lfs.github.com/spec/v1\n", "is no tar but a Git LFS pointer"),
    ],
)
def test_another_format_called_tar_is_named_with_its_mend(tmp_path: Path, begin: bytes, words: str) -> None:
    for more in (bytes(1000), b""):
        (tmp_path / "a.tar").write_bytes(begin + more)
        assert words in refusal(tmp_path)


def test_a_tar_of_tars_is_named_with_its_mend(tmp_path: Path) -> None:
    write(tmp_path / "a.tar", [("n01440764.tar", b"x" * 2000), ("n01443537.tar", b"y")])
    assert "no image but other archives are in it (n01440764.tar ...). Unpack it once (tar xf)" in refusal(tmp_path)


def test_what_img2dataset_lays_beside_its_tars_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "00000.tar", [("0.jpg", b"x"), ("0.json", b'{"caption": "c"}'), ("0.txt", b"c")])
    for name in ("00000.parquet", "00000_stats.json"):
        (tmp_path / name).write_bytes(b"x")
    assert images(scan(tmp_path, None)) == [b"x"]
    (tmp_path / "00001.parquet").write_bytes(b"x")
    with pytest.raises(InputError, match=r"holds 2 Parquet shards .* and 1 tars"):
        scan(tmp_path, None)


def test_labels_of_a_pool_are_not_looked_at(tmp_path: Path) -> None:
    write(tmp_path / "a.tar", [("0.jpg", b"x"), ("0.json", b"[" * 9000), ("1.cls", b"\xff"), ("0.cls", b"")])
    assert images(scan(tmp_path, None)) == [b"x"]


def test_a_pool_of_tars_is_looked_at_where_each_begins(tmp_path: Path) -> None:
    write(tmp_path / "a.tar", [("0.jpg", b"x")])
    (tmp_path / "b.tar").write_bytes(b"\x1f\x8b\x08" + bytes(100))
    with pytest.raises(InputError, match=r"b\.tar: is no tar but gzip"):
        scan(tmp_path, None)


@pytest.mark.parametrize(
    ("members", "source"),
    [
        ([("0.cls", b"1")], ".cls"),
        ([("0.json", b'{"cls": "a"}')], ".json"),
        ([("0.txt", b"a")], ".txt"),
    ],
)
def test_a_corpus_says_what_holds_its_labels(tmp_path: Path, members: list, source: str) -> None:
    write(tmp_path / "a.tar", [("0.jpg", b"x"), *members])
    assert scan(tmp_path).labels_from == source
    assert scan(tmp_path, None).labels_from is None
    write(tmp_path / "b/cat.tar", [("cat/0.jpg", b"x")])
    assert scan(tmp_path / "b").labels_from == "the folders in it"
    write(tmp_path / "c/cat.tar", [("0.jpg", b"x")])
    write(tmp_path / "c/dog.tar", [("0.jpg", b"x")])
    assert scan(tmp_path / "c").labels_from == "the names of the tars"


@pytest.mark.parametrize("above", ["", "data/"])
def test_the_parts_of_a_data_set_in_one_tar_are_no_classes(tmp_path: Path, above: str) -> None:
    write(tmp_path / "a.tar", [(f"{above}{part}/cat/0.jpg", b"x") for part in ("train", "val", "test")])
    with pytest.raises(InputError, match="the folders in the tars, test, train, val, are the parts of a data set"):
        scan(tmp_path)
