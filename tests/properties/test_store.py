"""Properties of the store that hold for every input: keys, objects, seals, crashes."""

import json
import random
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.dying import Killed

from ray_ns.errors import IntegrityError
from ray_ns.seals import canonical, check_key, digest, seal, unseal
from ray_ns.store.commit import Output, ensure, find_commit
from ray_ns.store.objects import LocalStore

few = settings(derandomize=True, deadline=None, max_examples=60, database=None)
fewer = settings(few, max_examples=15)  # each one is many fsyncs

PARTS = st.text("abz019_=+@.,-", min_size=1, max_size=6).filter(lambda part: part not in {".", ".."})
NUMBERS = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
LEAVES = st.none() | st.booleans() | NUMBERS | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abcé ", max_size=4), inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text("abcé ", max_size=4), JSON, max_size=5)


def shuffled(value: Any, order: random.Random) -> Any:
    if isinstance(value, dict):
        items = [(key, shuffled(inner, order)) for key, inner in value.items()]
        order.shuffle(items)
        return dict(items)
    return [shuffled(inner, order) for inner in value] if isinstance(value, list) else value


@few
@given(OBJECTS, st.integers(0, 100))
def test_equal_values_have_equal_bytes_in_any_order_of_keys(value: dict[str, Any], order: int) -> None:
    assert canonical(shuffled(value, random.Random(order))) == canonical(value)
    assert canonical(json.loads(canonical(value))) == canonical(value)


@few
@given(OBJECTS, OBJECTS)
def test_digests_are_equal_exactly_where_bytes_are(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert (digest(one) == digest(other)) == (canonical(one) == canonical(other))


@few
@given(OBJECTS, st.integers(0))
def test_a_seal_opens_and_any_flipped_bit_of_it_shows(value: dict[str, Any], where: int) -> None:
    data = bytearray(seal(value))
    assert unseal(bytes(data), "k") == value
    bit = where % (8 * len(data))
    data[bit // 8] ^= 1 << bit % 8
    with pytest.raises(IntegrityError):
        unseal(bytes(data), "k")


@few
@given(st.binary(max_size=200))
def test_no_bytes_at_all_crash_unseal(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        unseal(data, "k")


@settings(few, max_examples=200)
@given(st.text("./\\ab:~\0\n *é%", max_size=8) | st.text(max_size=8))
def test_a_key_that_is_accepted_stays_below_the_root(key: str) -> None:
    root = Path("/somewhere/run")
    try:
        path = LocalStore(root).path(check_key(key))
    except ValueError:
        return
    assert path.is_relative_to(root)
    assert path != root
    assert ".." not in path.parts
    assert path.relative_to(root).as_posix() == key, "one key, one spelling"
    assert not any(character in key for character in "\\\0\n :")


@few
@given(st.lists(PARTS, min_size=1, max_size=4).map("/".join))
def test_ordinary_keys_are_accepted(key: str) -> None:
    assert check_key(key) == key


KEYS = st.sampled_from(["a/1", "a/2", "a/10", "b/a/1", "b", "c-d/x.json", "c/x"])
DATA = st.sampled_from([b"", b"one", b"two"])
OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["put", "put_if_absent"]), KEYS.filter(lambda key: key != "b"), DATA)
    | st.tuples(st.just("delete"), KEYS, st.just(b""))
    | st.tuples(st.just("list"), st.sampled_from(["", "a/", "a", "b/", "c", "c/", "nothing"]), st.just(b"")),
    max_size=12,
)


@fewer
@given(OPERATIONS.map(lambda found: [it for it in found if it[:2] != ("delete", "b")]))
def test_a_local_store_is_a_mapping(operations: list[tuple[str, str, bytes]]) -> None:
    model: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory() as folder:
        store = LocalStore(folder)
        for name, key, data in operations:
            if name == "put":
                store.put(key, data)
                model[key] = data
            elif name == "put_if_absent":
                assert store.put_if_absent(key, data) == (model.setdefault(key, data) == data)
            elif name == "delete":
                store.delete(key)
                model.pop(key, None)
            else:
                assert list(store.list(key)) == sorted(found for found in model if found.startswith(key))
        assert {key: store.get(key) for key in store.list("")} == model
        assert list((store.root / ".tmp").glob("*")) == []


class FaultyStore(LocalStore):
    """A local store that dies at the operation numbered ``die_at``, before it or just after it."""

    def __init__(self, root: Path, die_at: int, after: bool) -> None:
        super().__init__(root)
        self.left = die_at
        self.after = after

    def _step(self, before: bool) -> None:
        self.left -= before
        if self.left < 0 and before != self.after:
            raise Killed

    def get(self, key: str) -> bytes | None:
        self._step(True)
        data = super().get(key)
        self._step(False)
        return data

    def put(self, key: str, data: bytes) -> None:
        self._step(True)
        super().put(key, data)
        self._step(False)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        self._step(True)
        won = super().put_if_absent(key, data)
        self._step(False)
        return won

    def list(self, prefix: str) -> Iterator[str]:
        self._step(True)
        return super().list(prefix)


def work(stage: Output) -> tuple[Mapping[str, Any], int]:
    done = stage.done()
    for part in {0, 1} - set(done):
        stage.publish(part, {"x": bytes([part]), "y": b"y"}, {"part": part})
    return {"parts": 2}, 2


def tree(root: str) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in Path(root).rglob("*") if path.is_file()}


@fewer
@given(st.lists(st.tuples(st.integers(0, 14), st.booleans()), max_size=5))
def test_any_series_of_crashes_ends_in_the_same_bytes(crashes: list[tuple[int, bool]]) -> None:
    with tempfile.TemporaryDirectory() as whole, tempfile.TemporaryDirectory() as broken:
        ensure(LocalStore(whole), "s", {"seed": 1}, work, lambda: None)
        for die_at, after in crashes:
            try:
                ensure(FaultyStore(Path(broken), die_at, after), "s", {"seed": 1}, work, lambda: None)
            except Killed:
                continue
        ensure(LocalStore(broken), "s", {"seed": 1}, work, lambda: None)
        assert tree(broken) == tree(whole)


@fewer
@given(st.dictionaries(st.text("abc.", min_size=1, max_size=4), st.binary(max_size=40), max_size=4), OBJECTS)
def test_what_is_published_is_what_a_commit_gives_back(objects: dict[str, bytes], facts: dict[str, Any]) -> None:
    objects = {name: data for name, data in objects.items() if name not in {".", ".."}}
    with tempfile.TemporaryDirectory() as folder:
        store = LocalStore(folder)

        def publish(stage: Output) -> tuple[Mapping[str, Any], int]:
            stage.publish(0, objects, facts)
            return facts, 1

        ensure(store, "s", facts, publish, lambda: None)
        found = find_commit(store, "s")
        assert found is not None
        assert {name: stored.read(store) for name, stored in found.parts[0].objects.items()} == objects
        assert canonical(found.parts[0].facts) == canonical(found.summary) == canonical(facts)
