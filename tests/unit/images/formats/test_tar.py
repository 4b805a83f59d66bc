"""Tars are read as they lie; whatever is not a whole, plain archive of samples is refused by the member's name."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ray_ns.errors import InputError
from ray_ns.images.corpus import Corpus
from ray_ns.images.formats import tar


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
    corpus = scan(folder)
    with pytest.raises(InputError) as caught:
        corpus.open(corpus.shards[0])
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
        ([("0.jpg", b"x"), ("0.cls", b"cat")], "0.cls holds b'cat'. Expected a class number"),
        ([("0.jpg", b"x"), ("0.cls", b" " * 600)], "0.cls holds b'"),
        ([("0.jpg", b"x"), ("0.cls", b"1" + b" " * 600)], "0.cls holds b'1"),
        ([("0.jpg", b"x"), ("0.cls", b"9" * 20)], "0.cls holds b'999"),
        ([("0.jpg", b"x"), ("0.cls", b"1_0")], "0.cls holds b'1_0'"),
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


def test_no_mutation_of_a_tar_raises_anything_but_a_refusal(tmp_path: Path) -> None:
    import numpy as np

    members = [("p" * 120 + ".jpg", b"x" * 700), ("0.jpg", b"y" * 300), ("0.cls", b"3")]
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
            images(scan(folder, None))
            outcomes.add("read")
        except InputError:
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}


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
