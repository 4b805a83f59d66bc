"""Canonical bytes and seals."""

import json
import random
from collections.abc import Callable

import pytest

from ray_ns.errors import IntegrityError
from ray_ns.seals import canonical, digest, seal, sha256, unseal

VALUE = {"stage": "rounds/1/label", "parts": [{"n": 3, "x": 0.1}], "name": "grün", "none": None, "yes": True}


def test_the_bytes_do_not_depend_on_the_order_of_keys() -> None:
    backwards = {key: VALUE[key] for key in sorted(VALUE, reverse=True)}
    assert list(backwards) != list(VALUE)
    assert canonical(backwards) == canonical(VALUE)
    assert digest(backwards) == digest(VALUE)
    assert seal(backwards) == seal(VALUE)


def test_canonical_bytes_are_pinned_for_runs_that_exist() -> None:
    assert canonical({"b": [1, 2.5], "a": "ü"}) == '{"a":"ü","b":[1,2.5]}'.encode()
    assert digest({}) == sha256(b"{}") == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_json_cannot_hold_are_refused(number: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical({"loss": [number]})


def test_unseal_gives_back_what_was_sealed() -> None:
    assert unseal(seal(VALUE), "plan.json") == VALUE


def test_every_single_flipped_bit_is_found_and_the_key_is_named() -> None:
    data = seal(VALUE)
    for position in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[position // 8] ^= 1 << position % 8
        with pytest.raises(IntegrityError, match=r"^rounds/1/label/plan\.json: "):
            unseal(bytes(flipped), "rounds/1/label/plan.json")


def test_every_truncation_is_found() -> None:
    data = seal(VALUE)
    for length in range(len(data)):
        with pytest.raises(IntegrityError):
            unseal(data[:length], "k")


def _reordered(data: bytes) -> bytes:
    items = list(json.loads(data).items())
    random.Random(0).shuffle(items)
    return json.dumps(dict(items), separators=(",", ":"), ensure_ascii=False).encode()


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda data: data + b"\n", id="newline after"),
        pytest.param(lambda data: b" " + data, id="space before"),
        pytest.param(lambda data: data.replace(b":", b": ", 1), id="space within"),
        pytest.param(lambda data: json.dumps(json.loads(data), indent=1).encode(), id="pretty"),
        pytest.param(lambda data: data.replace("ü".encode(), b"\\u00fc"), id="escaped"),
        pytest.param(_reordered, id="reordered"),
        pytest.param(lambda data: data.replace(b'"none":null', b'"none":null,"none":null'), id="key twice"),
        pytest.param(lambda data: data.replace(b'"n":3', b'"n":4'), id="content"),
        pytest.param(lambda data: data.replace(b'"x":0.1', b'"x":NaN'), id="NaN"),
        pytest.param(lambda data: canonical({**json.loads(data), "seal": "0" * 64}), id="foreign seal"),
        pytest.param(lambda data: canonical(VALUE), id="no seal"),
    ],
)
def test_any_other_spelling_is_refused(change: Callable[[bytes], bytes]) -> None:
    changed = change(seal(VALUE))
    assert changed != seal(VALUE)
    with pytest.raises(IntegrityError):
        unseal(changed, "k")


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b'"seal"', b"\xff\xfe", b"[" * 200_000, b'{"seal":1}'])
def test_bytes_that_are_no_sealed_object_are_an_integrity_error(data: bytes) -> None:
    with pytest.raises(IntegrityError) as caught:
        unseal(data, "k")
    assert caught.value.exit_code == 4


def test_the_key_of_the_seal_is_reserved() -> None:
    with pytest.raises(ValueError, match="reserved"):
        seal({"seal": "mine"})
