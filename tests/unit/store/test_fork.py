"""A forked run's store: its own records and writes, the other run's data by reference, and who is named in an error."""

import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from ray_ns.errors import IntegrityError, ResumableError
from ray_ns.seals import seal, sha256
from ray_ns.store import layout
from ray_ns.store.commit import StoredObject, find_commit
from ray_ns.store.fork import FORK, ForkedStore, chain, holder, open_run
from ray_ns.store.objects import LocalStore, ObjectStore
from ray_ns.store.verify import verify

DATA = "rounds/0/train/data/000000-aa/model.safetensors"
RECORDS = (
    *("run.json", "corpora-1.json", "rounds/0/train/plan.json", "rounds/0/train/commit.json"),
    *("rounds/0/train/done/000000.json", "rounds/0/train/checkpoints/ab/000001-1-x.json", "driver/000001.json"),
    *("register/rounds/0/train.json", "rounds/0/train/timing.json"),
)


@pytest.fixture
def own(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "own")


@pytest.fixture
def other(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "other")


@pytest.fixture
def forked(own: LocalStore, other: LocalStore) -> ForkedStore:
    return ForkedStore(own, other)


def read(store: ObjectStore, key: str) -> bytes | None:
    file = store.open(key)
    return None if file is None else file.read()


READS: list[Callable[[ObjectStore, str], bytes | None]] = [lambda store, key: store.get(key), read]


@pytest.mark.parametrize("how", READS)
def test_data_that_it_has_not_is_the_other_runs(
    forked: ForkedStore, other: LocalStore, how: Callable[[ObjectStore, str], bytes | None]
) -> None:
    assert how(forked, DATA) is None
    other.put(DATA, b"theirs")
    assert how(forked, DATA) == b"theirs"
    forked.put(DATA, b"mine")
    assert how(forked, DATA) == b"mine"
    assert other.get(DATA) == b"theirs"


@pytest.mark.parametrize("how", READS)
@pytest.mark.parametrize("key", RECORDS)
def test_records_are_never_the_other_runs(
    forked: ForkedStore, other: LocalStore, key: str, how: Callable[[ObjectStore, str], bytes | None]
) -> None:
    other.put(key, b"theirs")
    assert how(forked, key) is None


def test_writes_deletes_and_listings_are_its_own(forked: ForkedStore, own: LocalStore, other: LocalStore) -> None:
    for key in (DATA, *RECORDS):
        other.put(key, b"theirs")
    before = sorted(other.list(""))
    assert list(forked.list("")) == []
    assert forked.put_if_absent(DATA, b"mine") is True, "only an object of its own is in the way"
    forked.put("run.json", b"mine")
    forked.delete(DATA)
    forked.delete(RECORDS[2])
    forked.sweep()
    assert list(forked.list("")) == ["run.json"] == list(own.list(""))
    assert sorted(other.list("")) == before
    assert other.get(DATA) == b"theirs"


def test_it_travels_and_equals_itself(forked: ForkedStore, own: LocalStore, other: LocalStore) -> None:
    other.put(DATA, b"theirs")
    again = pickle.loads(pickle.dumps(forked.patient(5.0)))
    assert (again, hash(again)) == (forked, hash(forked))
    assert again.get(DATA) == b"theirs"
    assert forked != ForkedStore(other, own)
    assert forked != own
    assert forked.url == own.url


def note_fork(store: LocalStore, other: LocalStore) -> None:
    store.put(FORK, seal({"from": other.url}))


def test_a_run_opens_over_those_it_was_forked_from(own: LocalStore, other: LocalStore, tmp_path: Path) -> None:
    first = LocalStore(tmp_path / "first")
    assert open_run(own.url) == own
    note_fork(own, other)
    note_fork(other, first)
    store = open_run(own.url)
    assert list(chain(store)) == [own, other, first]
    first.put(DATA, b"theirs")
    assert store.get(DATA) == b"theirs"
    assert holder(store, DATA) == first
    assert holder(store, "nothing") == own


@pytest.mark.parametrize("length", [1, 2, 3])
def test_runs_that_are_forked_in_a_circle_are_refused(tmp_path: Path, length: int) -> None:
    stores = [LocalStore(tmp_path / str(number)) for number in range(length)]
    for store, following in zip(stores, [*stores[1:], stores[0]], strict=True):
        note_fork(store, following)
    with pytest.raises(IntegrityError, match="was itself forked from this run"):
        open_run(stores[0].url)


def test_a_damaged_reference_is_refused_by_name(own: LocalStore, other: LocalStore) -> None:
    own.put(FORK, seal({"from": other.url}).replace(b"other", b"ether"))
    with pytest.raises(IntegrityError, match=f"{own.url}/{FORK}"):
        open_run(own.url)


def stored(data: bytes) -> StoredObject:
    return StoredObject(DATA, sha256(data), len(data))


def test_damage_in_the_other_run_is_named_with_its_place(forked: ForkedStore, other: LocalStore) -> None:
    other.put(DATA, b"thEirs")
    with pytest.raises(IntegrityError) as caught:
        stored(b"theirs").read(forked)
    assert str(caught.value).startswith(f"{DATA} in {other.url} does not match its hash (6 bytes read)")
    assert f"{forked.url} was forked from that run. " in str(caught.value)
    assert "delete its stage's folder there and run again" in str(caught.value)


def test_damage_of_its_own_is_named_with_its_own_place(forked: ForkedStore, own: LocalStore, other: LocalStore) -> None:
    other.put(DATA, b"theirs")
    own.put(DATA, b"thEirs")
    with pytest.raises(IntegrityError) as caught:
        stored(b"theirs").read(forked)
    assert str(caught.value).startswith(f"{DATA} in {own.url} does not match")
    assert "forked" not in str(caught.value)


@pytest.mark.parametrize("what", ["read", "open"])
def test_where_the_other_run_is_gone_the_error_says_so(forked: ForkedStore, other: LocalStore, what: str) -> None:
    with pytest.raises(IntegrityError) as caught:
        getattr(stored(b"theirs"), what)(forked)
    said = f"This run was forked from {other.url}, which does not hold it either. Put that run back there"
    assert said in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_what_cannot_be_read_in_the_other_run_does_not_count_as_absent(forked: ForkedStore, other: LocalStore) -> None:
    other.put(DATA, b"theirs")
    other.path(DATA).chmod(0)
    with pytest.raises(ResumableError, match=other.url):
        forked.get(DATA)


def free() -> None:
    """A fence nobody has run into."""


def begin(store: ObjectStore) -> None:
    layout.begin(store, {"run": {}}, {"pool": []}, free, layout.Classes(3), 1, [{"pool": [1]}, {"pool": [1, 2]}])


def test_a_fork_begins_with_a_reference_and_all_generations(forked: ForkedStore, own: LocalStore) -> None:
    begin(forked)
    assert open_run(own.url) == forked
    assert layout.generations(own) == [{"pool": []}, {"pool": [1]}, {"pool": [1, 2]}]
    assert {layout.read(own, key)["format"] for key in ("run.json", "corpora-1.json", "corpora-3.json")} == {1}  # type: ignore[index]
    assert find_commit(own, "digests") is None
    found = dict(verify(open_run(own.url)))
    assert {"fork.json", "run.json", "corpora-1.json", "corpora-2.json", "corpora-3.json"} <= set(found)
    assert set(found.values()) == {None}


@pytest.mark.parametrize("lost", [FORK, "corpora-2.json", "corpora-3.json"])
def test_verify_misses_what_a_fork_began_with(forked: ForkedStore, own: LocalStore, lost: str) -> None:
    begin(forked)
    own.delete(lost)
    assert "is missing" in (dict(verify(open_run(own.url)))[lost] or "")


def test_verify_reads_data_through_the_reference(forked: ForkedStore, own: LocalStore, other: LocalStore) -> None:
    begin(forked)
    data = stored(b"theirs")
    part = {"objects": {"model.safetensors": vars(data)}, "facts": {}}
    own.put("rounds/0/train/plan.json", seal({"stage": "rounds/0/train", "inputs": {}}))
    record = {"part": 0, **part}
    own.put("rounds/0/train/done/000000.json", seal(record))
    assert "does not hold it either" in (dict(verify(open_run(own.url)))[DATA] or "")
    other.put(DATA, b"theirs")
    assert dict(verify(open_run(own.url)))[DATA] is None
    other.put(DATA, b"thEirs")
    assert other.url in (dict(verify(open_run(own.url)))[DATA] or "")


def test_an_open_object_is_a_seekable_file(forked: ForkedStore, other: LocalStore) -> None:
    other.put(DATA, b"theirs")
    file = forked.open(DATA)
    assert file is not None
    with file:
        file.seek(2, io.SEEK_SET)
        assert file.read() == b"eirs"
