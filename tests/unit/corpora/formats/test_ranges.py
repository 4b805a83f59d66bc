"""Ranges of a file: the bytes asked for, few reads, little waste, several at once where each is a request."""

import threading
from pathlib import Path

import numpy as np
import pytest
from pyarrow import fs
from support.shards import write_as

from ray_ns.corpora.formats import ranges
from ray_ns.corpora.formats.place import Place


class Noted:
    """A file that notes what is read of it."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.reads: list[tuple[int, int]] = []

    def read_at(self, size: int, at: int) -> bytes:
        self.reads.append((at, size))
        return self.data[at : at + size]


LOCAL = Place.of("/")


def read(file: Noted, wanted: list[tuple[int, int]], waste: float = ranges.WASTE) -> tuple[list[bytes], int]:
    begins, sizes = np.array(wanted, np.int64).reshape(-1, 2).T
    found, count = ranges.read(LOCAL, file, begins, sizes, waste)  # type: ignore[arg-type]
    return [bytes(it) for it in found], count


@pytest.mark.parametrize(
    ("wanted", "reads"),
    [
        ([], []),
        ([(5, 0)], [(5, 0)]),
        ([(0, 100), (100, 50), (150, 7)], [(0, 157)]),
        ([(0, 100), (190, 100)], [(0, 290)]),  # 290 <= 1.5 x 200
        ([(0, 100), (210, 100)], [(0, 100), (210, 100)]),
        ([(0, 10), (1000, 10), (1010, 10)], [(0, 10), (1000, 20)]),
        ([(0, 300_000), (300_000 + ranges.GAP, 9)], [(0, 300_009 + ranges.GAP)]),
        ([(0, 300_000), (300_001 + ranges.GAP, 9)], [(0, 300_000), (300_001 + ranges.GAP, 9)]),
    ],
)
def test_near_ranges_are_one_read_and_far_ones_are_not(
    wanted: list[tuple[int, int]], reads: list[tuple[int, int]]
) -> None:
    file = Noted(np.random.default_rng(0).bytes(400_000))
    found, count = read(file, wanted)
    assert found == [file.data[at : at + size] for at, size in wanted]
    assert file.reads == reads
    assert count == sum(size for _, size in reads)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("waste", [1.5, 2.0])
def test_never_more_than_the_waste_is_read(share: float, waste: float) -> None:
    rng = np.random.default_rng(int(100 * share))
    sizes = rng.integers(0, 3000, 500)
    begins = np.cumsum(sizes + rng.integers(0, 1500, 500)) - sizes
    chosen = np.flatnonzero(rng.random(500) < share)
    file = Noted(rng.bytes(int(begins[-1] + sizes[-1])))
    wanted = list(zip(begins[chosen].tolist(), sizes[chosen].tolist(), strict=True))
    found, count = read(file, wanted, waste)
    assert found == [file.data[at : at + size] for at, size in wanted]
    assert count == sum(size for _, size in file.reads) <= waste * sizes[chosen].sum()
    assert len(file.reads) <= len(chosen)


def test_a_file_that_ends_too_early_is_said_to() -> None:
    with pytest.raises(OSError, match="it ends at byte 100, before byte 120"):
        read(Noted(bytes(100)), [(0, 20), (90, 30)])


def test_a_remote_place_is_asked_several_times_at_once(tmp_path: Path) -> None:
    elsewhere = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())
    remote = Place("far", elsewhere, "", elsewhere)
    together = threading.Barrier(ranges.REQUESTS, timeout=10)

    def doubled(number: int) -> int:
        together.wait()
        return 2 * number

    assert list(ranges.each(remote, doubled, range(ranges.REQUESTS))) == [2 * it for it in range(ranges.REQUESTS)]


@pytest.mark.parametrize(
    ("sizes", "bounds"),
    [
        ([], [0]),
        ([5], [0, 1]),
        ([1] * 7, [0, 3, 6, 7]),
        ([1] * 6, [0, 3, 6]),
        ([60, 30, 30, 1], [0, 2, 4]),
        ([100, 100, 1], [0, 1, 2, 3]),
        ([101, 101, 101, 101], [0, 3, 4]),
        ([50, 10**12, 50, 1], [0, 3, 4]),
    ],
)
def test_groups_are_small_in_images_and_in_bytes(
    monkeypatch: pytest.MonkeyPatch, sizes: list[int], bounds: list[int]
) -> None:
    monkeypatch.setattr(ranges, "GROUP_BYTES", 100)
    monkeypatch.setattr(ranges, "MAX_BYTES", 100)
    assert ranges.groups(sizes, 3) == bounds


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_large_images_are_read_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(ranges, "GROUP_BYTES", 1000)
    images = [bytes([row]) * (400 if row < 5 else 100) for row in range(20)]
    corpus = write_as(kind, tmp_path / "pool", images)
    reader = corpus.open(corpus.shards[0])
    assert reader.group_rows == [2, 2, 7, 9]
    found = [image for group in range(4) for image in reader.images(group).to_pylist()]
    assert found == images
    assert reader.images(2, np.array([0, 6])).to_pylist() == [images[4], images[10]]
