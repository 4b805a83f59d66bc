"""Which labelled images train and which evaluate: a held-out share, and no image on both sides."""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

from ray_ns.images.corpus import Corpus, image_ids
from ray_ns.keyed import hashes

DIGEST_BYTES = 16


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


def digests(corpus: Corpus) -> list[list[bytes]]:
    """The BLAKE2b digest of every image's bytes, per shard in order of rows; empty where there are none."""
    found = []
    for shard in corpus.shards:
        reader = corpus.open(shard)
        groups = (reader.images(group) for group, rows in enumerate(reader.group_rows) if rows)
        found.append([_digest(image.as_py()) for images in groups for image in images])
    return found


def without(
    corpus: Corpus, own: Sequence[Sequence[bytes]], others: Iterable[Sequence[bytes]]
) -> tuple[Corpus, set[bytes]]:
    """The corpus (whose ``digests`` are ``own``) without the images that ``others`` hold too, and those digests."""
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


def _digest(image: bytes | None) -> bytes:
    return hashlib.blake2b(image, digest_size=DIGEST_BYTES).digest() if image else b""
