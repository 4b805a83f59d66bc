"""Which labelled images train and which evaluate: those that can be read, a held-out share, none on both sides."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ray_ns.images.corpus import Corpus, image_ids
from ray_ns.images.decode import Reason
from ray_ns.images.isolate import Outcome
from ray_ns.images.known import digest_of
from ray_ns.keyed import hashes


def hold_out(
    corpus: Corpus, labels: Sequence[np.ndarray], share: float, parts: int, key: int
) -> list[list[np.ndarray]]:
    """Divide a corpus: per part the rows (bool, per shard) held out for it, and at the end those that are left.

    Each part gets ``share`` of every class, at least one image, drawn by a hash of (``key``, ImageId). ``labels``
    int64 (rows,) per shard. Raises ``ValueError`` with the class of which nothing would be left.
    """
    ids = np.concatenate(
        [image_ids(shard.ordinal, np.arange(len(of))) for shard, of in zip(corpus.shards, labels, strict=True)]
    )
    truth = np.concatenate(labels)
    part_of = np.full(len(ids), parts)
    for label in np.unique(truth):
        members = np.flatnonzero(truth == label)
        many = max(1, round(share * len(members)))
        if len(members) <= parts * many:
            raise ValueError(int(label))
        drawn = members[np.argsort(hashes(ids[members], key), kind="stable")]
        for part in range(parts):
            part_of[drawn[part * many : (part + 1) * many]] = part
    bounds = np.cumsum([len(of) for of in labels])[:-1]
    return [np.split(part_of == part, bounds) for part in range(parts + 1)]


@dataclass(frozen=True)
class Looked:
    """What one reading of a corpus found.

    ``digests``: the digest of every image's bytes, per shard in order of rows, empty where there are none;
    ``readable``: bool (rows,) per shard; ``bad``: the reasons of the others, by their names.
    """

    digests: list[list[bytes]]
    readable: list[np.ndarray]
    bad: dict[str, str]


def look(
    corpus: Corpus,
    decode: Callable[[str, Iterable[bytes | None]], Iterator[Outcome]],
    after_shard: Callable[[], None] = lambda: None,
) -> Looked:
    """Read and decode every image of ``corpus`` once."""
    found = Looked([], [], {})
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
                readable.append(not isinstance(outcome, Reason))
        found.digests.append(digests)
        found.readable.append(np.array(readable, bool))
        after_shard()
    return found


def digests_of(corpus: Corpus) -> list[list[bytes]]:
    """The digest of every image's bytes, per shard in order of rows, empty where there are none."""
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
    """The corpus (whose digests are ``own``) without the images that ``others`` hold too, and those digests."""
    shared = {it for digest in own for it in digest if it} & {it for digest in others for it in digest}
    if not shared:
        return corpus, shared
    rest = [np.array([it not in shared for it in of], bool) for of in own]
    return corpus.keeping(rest), shared


def named(corpus: Corpus, own: Sequence[Sequence[bytes]], digest: bytes) -> str | None:
    """The name of the first image with that digest, None where the corpus has none."""
    for shard, of in zip(corpus.shards, own, strict=True):
        if digest in of:
            return corpus.open(shard).where(of.index(digest))
    return None
