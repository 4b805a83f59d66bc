"""Which labelled images train and which evaluate: drop unreadable ones, hold a share out, keep copies on one side."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Literal

import numpy as np

from ray_ns.corpora.corpus import Corpus, image_ids
from ray_ns.corpora.known import digest_of
from ray_ns.images.decode import Reason
from ray_ns.images.isolate import Outcome
from ray_ns.keyed import hashes

SHARE = 0.1  # of each class, that ``auto`` holds out for each part at most
FULL = 2_000  # labelled images, from which on it does: a part then has 200, on which a student shows
LARGEST = 10**9  # labelled images that anyone might sort
MOST = 1_000  # images of a part: on 961 a difference of 2 points leaves chance (``evaluate.verdict.ENOUGH``)

Draw = Callable[[int], int]  # how many images each part gets of a class of so many


def drawing(held_out: float | int | Literal["auto"], images: int, classes: int) -> Draw:
    """By ``data.held_out``, of ``images`` labelled ones in all; not of 0.

    A share or a count of each class is halved. ``auto``: a tenth of each class for each part from ``FULL`` images on,
    a proportionally smaller share of fewer, which are worth more in training than in a verdict; and no more than
    ``MOST`` images of all classes.
    """
    if held_out == "auto":
        share, most = SHARE * min(1.0, images / FULL), math.ceil(MOST / classes)
        return lambda members: max(1, min(most, round(share * members)))
    if isinstance(held_out, int):
        return lambda members: held_out // 2
    half = held_out / 2
    return lambda members: max(1, round(half * members))


def labelled_for(held_out: float | int | Literal["auto"], counts: np.ndarray, images: int) -> int | None:
    """How many labelled images in all it takes until each part that ``drawing`` holds out has so many ``images``.

    ``counts``: how many each class has now, int (classes,); the classes keep their shares. At least as many as now.
    None where no number is enough: a count of each class stays what it is, and ``auto`` ends at ``MOST``.
    """
    now = int(counts.sum())

    def part(of: int) -> int:
        members = np.maximum(1, np.round(counts * (of / now)).astype(np.int64))
        draw = drawing(held_out, of, len(counts))
        return sum(draw(it) for it in members.tolist())

    low, high = now - 1, now
    while part(high) < images:
        low, high = high, 2 * high
        if high > LARGEST:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if part(middle) >= images else (middle, high)
    return high


def hold_out(
    corpus: Corpus, labels: Sequence[np.ndarray], draw: Draw, parts: int, key: int, first: np.ndarray | None = None
) -> list[list[np.ndarray]]:
    """Divide a corpus: the rows (bool, per shard) held out for each part, and last the rows that are left.

    Each part gets ``draw`` of every class, drawn by a hash of (``key``, ImageId).

    Args:
        corpus: the corpus to divide.
        labels: int64 (rows,) per shard.
        draw: how many images of a class, for each part.
        parts: how many.
        key: seeds the draw.
        first: int64 (images,): for each image the first image of its group of near-copies. A group stays on one side,
            except in a class that cannot be divided then. A group larger than a part's share is drawn only if there is
            no other.

    Raises:
        ValueError: with the class of which nothing would be left.
    """
    ids = np.concatenate(
        [image_ids(shard.ordinal, np.arange(len(of))) for shard, of in zip(corpus.shards, labels, strict=True)]
    )
    truth = np.concatenate(labels)
    part_of = np.full(len(ids), parts)
    for label in np.unique(truth):
        members = np.flatnonzero(truth == label)
        many = draw(len(members))
        group_of = members if first is None else first[members]
        heads = np.unique(group_of)
        order = heads[np.argsort(hashes(ids[heads], key), kind="stable")]
        if len(heads) < len(members) and _drawn([members[group_of == head] for head in order], many, parts, part_of):
            continue
        part_of[members] = parts
        alone = members[np.argsort(hashes(ids[members], key), kind="stable")]
        if not _drawn(list(alone[:, None]), many, parts, part_of):
            raise ValueError(int(label))
    bounds = np.cumsum([len(of) for of in labels])[:-1]
    return [np.split(part_of == part, bounds) for part in range(parts + 1)]


def _drawn(groups: Sequence[np.ndarray], many: int, parts: int, part_of: np.ndarray) -> bool:
    """Give each part about ``many`` images, whole groups in their order; False if nothing would be left."""
    left = list(groups)
    for part in range(parts):
        missing, rest = many, []
        for at, group in enumerate(left):
            if not missing:
                rest += left[at:]
                break
            if len(group) <= missing:
                part_of[group] = part
                missing -= len(group)
            else:
                rest.append(group)
        if missing == many and rest:
            smallest = min(range(len(rest)), key=lambda at: len(rest[at]))
            part_of[rest.pop(smallest)] = part
        left = rest
    return bool(left)


@dataclass(frozen=True)
class Looked:
    """What one reading of a corpus found.

    Attributes:
        digests: the digest of every image's bytes, per shard in row order; empty for an image without bytes.
        readable: bool (rows,) per shard.
        bad: why the others are unreadable, by their names.
        pixels: the decoded readable images, in order; None if there are more than were asked for.
    """

    digests: list[list[bytes]]
    readable: list[np.ndarray]
    bad: dict[str, str]
    pixels: list[np.ndarray] | None


def look(
    corpus: Corpus,
    decode: Callable[[str, Iterable[bytes | None]], Iterator[Outcome]],
    after_shard: Callable[[], None] = lambda: None,
    pixels: int = 0,
) -> Looked:
    """Read and decode every image of ``corpus`` once; ``pixels``: keep them if there are no more."""
    found = Looked([], [], {}, None)
    kept: list[np.ndarray] = []
    total = 0
    for shard in corpus.shards:
        reader = corpus.open(shard)
        digests: list[bytes] = []
        readable: list[bool] = []
        for group in (group for group, rows in enumerate(reader.group_rows) if rows):
            images = reader.images(group).to_pylist()
            digests += map(digest_of, images)
            for outcome in decode(f"{corpus.root} {shard.path} {shard.stamp} {group}", images):
                if isinstance(outcome, Reason):
                    found.bad[reader.where(len(readable))] = str(outcome)
                elif total < pixels:
                    kept.append(outcome)
                readable.append(not isinstance(outcome, Reason))
                total += readable[-1]
        found.digests.append(digests)
        found.readable.append(np.array(readable, bool))
        after_shard()
    return replace(found, pixels=kept if total <= pixels else None)


def digests_of(corpus: Corpus) -> list[list[bytes]]:
    """The digest of every image's bytes, per shard in row order; empty for an image without bytes."""
    return [
        [
            digest_of(image.as_py())
            for group, rows in enumerate(reader.group_rows)
            if rows
            for image in reader.images(group)
        ]
        for reader in map(corpus.open, corpus.shards)
    ]


def without(
    corpus: Corpus, own: Sequence[Sequence[bytes]], others: Iterable[Sequence[bytes]]
) -> tuple[Corpus, set[bytes]]:
    """The corpus (with digests ``own``) without the images that are also in ``others``, and the digests of these."""
    shared = {it for digest in own for it in digest if it} & {it for digest in others for it in digest}
    if not shared:
        return corpus, shared
    rest = [np.array([it not in shared for it in of], bool) for of in own]
    return corpus.keeping(rest), shared


def conflicts(own: Sequence[Sequence[bytes]], labels: Sequence[np.ndarray]) -> dict[bytes, list[int]]:
    """Digests of images that are in several classes, with these classes, ascending."""
    found: dict[bytes, set[int]] = {}
    for digest, label in zip(chain.from_iterable(own), np.concatenate(labels).tolist(), strict=True):
        if digest:
            found.setdefault(digest, set()).add(label)
    return {digest: sorted(of) for digest, of in found.items() if len(of) > 1}


def named(corpus: Corpus, own: Sequence[Sequence[bytes]], digest: bytes) -> str | None:
    """The name of the first image with this digest; None if there is none."""
    for shard, of in zip(corpus.shards, own, strict=True):
        if digest in of:
            return corpus.open(shard).where(of.index(digest))
    return None
