"""Which other files an image of a packed pool stands for: those that its ingests found to have the same bytes."""

import json
import mmap
import re
import tempfile
from array import array
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import xxhash

from ray_ns.corpora.corpus import Corpus
from ray_ns.corpora.formats.place import Place
from ray_ns.errors import IntegrityError
from ray_ns.seals import sha256, unseal
from ray_ns.store.commit import Part

LEFT_OUT, DUPLICATE = "left_out.jsonl", "duplicate"
_OF_INGEST = re.compile(r"ingest-\d{4}/data/")


class Duplicates:
    """The duplicates of a packed pool by the name of the image that was kept. In memory they take 16 bytes each.

    Their names lie in a temporary file. A pool that no ingest packed has none. Use as a context.
    """

    def __init__(self, pool: Corpus) -> None:
        self._names = tempfile.TemporaryFile()  # noqa: SIM115 - closed when this is left
        self._lines: mmap.mmap | None = None
        hashes, begins, at = array("Q"), array("q"), 0  # of eight bytes each
        for of, source in _duplicates(pool):
            line = json.dumps([of, source]).encode() + b"\n"
            self._names.write(line)
            hashes.append(_hash(of))
            begins.append(at)
            at += len(line)
        order = np.argsort(np.array(hashes, np.uint64), kind="stable")
        self._hashes, self._begins = np.array(hashes, np.uint64)[order], np.array(begins, np.int64)[order]
        if at:
            self._names.flush()
            self._lines = mmap.mmap(self._names.fileno(), 0, access=mmap.ACCESS_READ)

    def __enter__(self) -> "Duplicates":
        return self

    def __exit__(self, *_: object) -> None:
        if self._lines is not None:
            self._lines.close()
        self._names.close()

    def of(self, sources: pa.Array | pa.ChunkedArray) -> pa.Array:
        """For each image, by the name under which it was packed (null: none), a list of its duplicates' names."""
        found: dict[int, list[str]] = {}
        if self._lines is not None:
            names = sources.to_pylist()
            hashes = np.fromiter((_hash(it or "") for it in names), np.uint64, len(names))
            first, last = (np.searchsorted(self._hashes, hashes, side) for side in ("left", "right"))
            for row in np.flatnonzero(last > first).tolist():
                lines = (self._line(at) for at in self._begins[first[row] : last[row]].tolist())
                found[row] = [source for of, source in lines if of == names[row]]
        counts = np.zeros(len(sources), np.int64)
        counts[list(found)] = [len(it) for it in found.values()]
        ends = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
        return pa.ListArray.from_arrays(ends, pa.array([it for row in found.values() for it in row], pa.string()))

    def _line(self, begin: int) -> list[str]:
        assert self._lines is not None
        line: list[str] = json.loads(self._lines[begin : self._lines.find(b"\n", begin)])
        return line


def _duplicates(pool: Corpus) -> Iterator[tuple[str, str]]:
    """(the name of the image that was kept, the name of a file with the same bytes), of all ingests into a pool."""
    if not any(_OF_INGEST.match(shard.path) for shard in pool.shards[:1]):
        return
    place, number = Place.of(pool.root), 1
    while (commit := _read(place, f"ingest-{number:04d}/commit.json")) is not None:
        for value in unseal(commit, place.name(f"ingest-{number:04d}/commit.json"))["parts"]:
            stored = Part.from_json(value).objects.get(LEFT_OUT)
            for line in _checked(place, stored.key, stored.sha256).splitlines() if stored else ():
                image = json.loads(line)
                if image["why"] == DUPLICATE:
                    yield image["of"], image["source"]
        number += 1


def _hash(name: str) -> int:
    return xxhash.xxh3_64_intdigest(name.encode())


def _read(place: Place, path: str) -> bytes | None:
    try:
        with place.open(path) as file:
            data: bytes = file.read()
            return data
    except FileNotFoundError:
        return None


def _checked(place: Place, path: str, digest: str) -> bytes:
    data = _read(place, path)
    if data is None or sha256(data) != digest:
        state = "is missing" if data is None else "does not match its hash"
        raise IntegrityError(f"{place.name(path)} {state}; its ingest's commit names it. Restore it from a backup.")
    return data
