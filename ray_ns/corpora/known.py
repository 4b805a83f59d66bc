"""Images known by their bytes: which image of a pool is a labelled, a validation or a test image too."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import xxhash

DIGEST_BYTES = 16
VERSION = "blake2b-16"  # 1 % of the time that decoding a photograph takes, 7 % of a small one
NO_IMAGE = bytes(DIGEST_BYTES)
IN = {name: f"in_{name}" for name in ("labelled", "validation", "test")}  # why an image is left out, by corpus
_DIGEST = np.dtype(f"S{DIGEST_BYTES}")  # equal in length, so that the zeros numpy drops at an end change no comparison


def digest_of(image: bytes | None) -> bytes:
    """The digest of an image's bytes; empty where there are none, for such an image is nobody's twin."""
    return hashlib.blake2b(image, digest_size=DIGEST_BYTES).digest() if image else b""


def check_of(image: bytes | None) -> bytes:
    """``DIGEST_BYTES`` that tell whether an image's bytes have changed: XXH3, which costs next to nothing."""
    return xxhash.xxh3_128_digest(image or b"")


def packed(digests: Sequence[Sequence[bytes]]) -> bytes:
    """The digests of a corpus, per shard in order of rows, as one run of bytes, ``DIGEST_BYTES`` each."""
    return b"".join(digest or NO_IMAGE for of in digests for digest in of)


def unpacked(data: bytes, rows: Sequence[int]) -> list[list[bytes]]:
    """What ``packed`` made bytes of; ``rows`` of each shard."""
    whole = iter([data[at : at + DIGEST_BYTES].replace(NO_IMAGE, b"") for at in range(0, len(data), DIGEST_BYTES)])
    return [[next(whole) for _ in range(count)] for count in rows]


class Known:
    """Looks images up among those of the labelled, validation and test corpora, given as ``packed`` digests by name."""

    def __init__(self, corpora: Mapping[str, bytes]) -> None:
        arrays = [np.frombuffer(data, _DIGEST) for data in corpora.values()]
        digests = np.concatenate(arrays) if arrays else np.empty(0, _DIGEST)
        places = np.repeat(np.arange(len(arrays), dtype=np.uint8), [len(it) for it in arrays])
        order = np.argsort(digests, kind="stable")
        self._digests, self._places = digests[order], places[order]
        self._reasons = [IN[name] for name in corpora]

    def __call__(self, image: bytes | None) -> str | None:
        """``in_labelled``, ``in_validation`` or ``in_test`` where the image is one of those, else None."""
        digest = digest_of(image)
        if not digest:
            return None
        at = int(self._digests.searchsorted(np.array(digest, _DIGEST)))
        if at == len(self._digests) or self._digests[at] != np.array(digest, _DIGEST):
            return None
        return self._reasons[self._places[at]]


def parted(reasons: Mapping[str, int]) -> tuple[dict[str, int], dict[str, int]]:
    """Counts by reason, ordered: of images that cannot be read, and of those left out because they are known."""
    ordered = dict(sorted(reasons.items()))
    left_out = {reason: count for reason, count in ordered.items() if reason in IN.values()}
    return {reason: count for reason, count in ordered.items() if reason not in left_out}, left_out


def in_words(left_out: Mapping[str, int]) -> str:
    """What was left out of the pool: ``5 images are labelled, validation or test images too and left out (...)``."""
    counted = ", ".join(f"{reason} {count:,}" for reason, count in left_out.items())
    return f"{sum(left_out.values()):,} images are labelled, validation or test images too and left out ({counted})"
