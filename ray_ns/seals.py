"""Canonical JSON, digests and seals: the bytes of every small object a run writes.

A sealed object is canonical JSON that holds its own sha256 under ``"seal"``. Each value has exactly one encoding, so
equal content means equal bytes, and any flipped bit is found.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from ray_ns.errors import IntegrityError

SEAL = "seal"


def canonical(value: Any) -> bytes:
    """The one JSON encoding of ``value``: sorted keys, no spaces, UTF-8, no NaN (``ValueError``)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def sha256(data: bytes) -> str:
    """Hex sha256 of ``data`` (64 characters)."""
    return hashlib.sha256(data).hexdigest()


def digest(value: Any) -> str:
    """Hex sha256 of the canonical JSON of ``value``."""
    return sha256(canonical(value))


def seal(value: Mapping[str, Any]) -> bytes:
    """The sealed bytes of ``value``."""
    if SEAL in value:
        raise ValueError(f"the key {SEAL!r} is reserved")
    return _sealed(value)


def unseal(data: bytes, key: str) -> dict[str, Any]:
    """The value of a sealed object; ``key`` names it in the error.

    Raises ``IntegrityError`` where a single bit differs from what was sealed.
    """
    return unseal_with_digest(data, key)[0]


def unseal_with_digest(data: bytes, key: str) -> tuple[dict[str, Any], str]:
    """The value of a sealed object and its ``digest``, which is the seal; ``key`` names it in the error.

    Raises ``IntegrityError`` where a single bit differs from what was sealed.
    """
    try:
        value = json.loads(data)
        in_order = list(value) == sorted(value)
        claimed = value.pop(SEAL)
        if in_order and sha256(_without_seal(data, claimed)) == claimed:
            return dict(value), claimed
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    raise IntegrityError(
        f"{key}: its seal does not match its content ({len(data)} bytes read), so it was changed after it was "
        f"written. Restore it from a backup, or delete the stage's folder and run again to make it anew."
    )


def _sealed(value: Mapping[str, Any]) -> bytes:
    """``canonical({**value, SEAL: digest(value)})`` with one encoding instead of two: a commit may have tens of MB."""
    before, after = (
        canonical({key: it for key, it in value.items() if (key < SEAL) == first})[1:-1] for first in (True, False)
    )
    content = b"{" + b",".join(filter(None, (before, after))) + b"}"
    return b"{" + b",".join(filter(None, (before, _entry(sha256(content)), after))) + b"}"


def _without_seal(data: bytes, claimed: str) -> bytes:
    """The bytes that were hashed: those without the seal and its comma. Encoding the value takes twice as long."""
    entry = _entry(claimed)
    at = data.index(entry)
    begin, end = at, at + len(entry)
    if data[end : end + 1] == b",":
        end += 1
    elif data[begin - 1 : begin] == b",":
        begin -= 1
    return data[:begin] + data[end:]


def _entry(seal_of_value: str) -> bytes:
    return f'"{SEAL}":"{seal_of_value}"'.encode()


_PART = re.compile(r"[A-Za-z0-9_=+@.,-]+")


def check_key(key: str) -> str:
    """``key`` itself if it is a safe relative POSIX path; raises ``ValueError`` otherwise.

    Refused: absolute paths, ``..`` and ``.``, drives, backslashes, NUL, empty parts.
    """
    for part in key.split("/"):
        if part in {".", ".."} or not _PART.fullmatch(part):
            raise ValueError(f"unsafe object key {key!r}: parts must match {_PART.pattern} and not be '.' or '..'")
    return key
