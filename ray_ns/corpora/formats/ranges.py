"""Reading many byte ranges of a file: near ones in one read, and over a network several reads at once."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import pyarrow as pa

from ray_ns.corpora.formats.place import Place
from ray_ns.images.decode import MAX_BYTES

REQUESTS = 16  # at the same time
GAP = 64 * 1024  # bytes between two ranges that are read too; a larger gap is cheaper to skip
GROUP_BYTES = 256 << 20  # at most, read at once: as many as one image may have
WASTE = 1.5  # bytes read per byte asked for, at most

T = TypeVar("T")
R = TypeVar("R")


def each(place: Place, read: Callable[[T], R], what: Iterable[T]) -> Iterator[R]:
    """The results of ``read`` for each, in order: one by one for a path, ``REQUESTS`` at once over a network."""
    if place.is_local:
        yield from map(read, what)
    else:
        with ThreadPoolExecutor(REQUESTS) as threads:
            yield from threads.map(read, what)


def read(
    place: Place, file: pa.NativeFile, begins: np.ndarray, sizes: np.ndarray, waste: float = WASTE
) -> tuple[list[memoryview], int]:
    """The bytes of each range (``begins`` ascending and ``sizes``, int64), and how many bytes were read for them.

    Raises ``OSError``, also if the file ends before a range does.
    """

    def whole(run: tuple[int, int, int, int]) -> memoryview:
        _, _, begin, end = run
        data = file.read_at(end - begin, begin)
        if len(data) != end - begin:
            raise OSError(f"it ends at byte {begin + len(data):,}, before byte {end:,}")
        return memoryview(data)

    runs = list(_runs(begins.tolist(), sizes.tolist(), waste))
    found = []
    for (first, last, begin, _), data in zip(runs, each(place, whole, runs), strict=True):
        starts = (begins[first:last] - begin).tolist()
        found += [data[at : at + size] for at, size in zip(starts, sizes[first:last].tolist(), strict=True)]
    return found, sum(end - begin for _, _, begin, end in runs)


def groups(sizes: Iterable[int], rows: int) -> list[int]:
    """Where groups of images with these sizes in bytes begin, and where the last one ends.

    A group has up to ``rows`` images and ``GROUP_BYTES`` bytes, so that large images do not fill the memory. Images of
    more than ``MAX_BYTES`` do not count, since they are not read.
    """
    bounds, held, at = [0], 0, 0
    for size in sizes:
        size = size if size <= MAX_BYTES else 0
        if at - bounds[-1] == rows or (at > bounds[-1] and held + size > GROUP_BYTES):
            bounds.append(at)
            held = 0
        held, at = held + size, at + 1
    return [*bounds, at] if at else bounds


def binary(values: list[memoryview]) -> pa.Array:
    """The values as an Arrow array of large binary, copied once; ``pa.array`` takes three times as long."""
    ends = np.cumsum([0, *map(len, values)], dtype=np.int64)
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(b"".join(values))]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(values), buffers)


def _runs(begins: list[int], sizes: list[int], waste: float) -> Iterator[tuple[int, int, int, int]]:
    """Ranges that are read together: (number of the first, one after the last, first byte, one after the last)."""
    first = used = 0
    for number, (begin, size) in enumerate(zip(begins, sizes, strict=True)):
        end = begins[number - 1] + sizes[number - 1] if number else begin
        near = begin - end <= GAP and begin + size - begins[first] <= waste * (used + size)
        if number > first and not near:
            yield first, number, begins[first], end
            first, used = number, 0
        used += size
    if begins:
        yield first, len(begins), begins[first], begins[-1] + sizes[-1]
