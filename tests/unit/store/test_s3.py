"""The S3 store keeps the local store's promises, on a real server."""

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import boto3
import pytest
from support.weed import weed

from ray_ns.errors import InputError, ResumableError
from ray_ns.store import gc, layout
from ray_ns.store.commit import Output, ensure, find_commit
from ray_ns.store.lease import Lease
from ray_ns.store.objects import ObjectStore, open_store


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with weed(tmp_path_factory.mktemp("weed"), "runs") as env, pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        yield


@pytest.fixture
def store(server: None) -> ObjectStore:
    return open_store(f"s3://runs/{uuid.uuid4().hex}")


def test_what_was_put_is_read_back_and_what_was_not_is_none(store: ObjectStore) -> None:
    store.put("a/b", b"one")
    store.put("a/b", b"two")
    assert store.get("a/b") == b"two"
    assert store.get("a/c") is None
    store.delete("a/b")
    store.delete("a/b")
    assert store.get("a/b") is None


def test_put_if_absent_has_one_winner_and_equal_bytes_are_success(store: ObjectStore) -> None:
    assert store.put_if_absent("k", b"first")
    assert store.put_if_absent("k", b"first")
    assert not store.put_if_absent("k", b"second")
    assert store.get("k") == b"first"


def test_of_four_racers_one_wins(store: ObjectStore) -> None:
    with ThreadPoolExecutor(4) as pool:
        won = list(pool.map(lambda i: store.put_if_absent("race", str(i).encode()), range(4)))
    assert sum(won) == 1
    assert store.get("race") == str(won.index(True)).encode()


def test_lists_are_sorted_whole_and_below_the_prefix(store: ObjectStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: store.put(f"p/{i:05d}", b""), range(1100)))
    store.put("q", b"")
    assert list(store.list("p/")) == [f"p/{i:05d}" for i in range(1100)]


def test_a_stage_commits_and_a_lease_is_held(store: ObjectStore) -> None:
    lease = Lease(store)

    def work(stage: Output) -> tuple[dict, int]:
        stage.publish(0, {"x.bin": b"data"}, {"rows": 1})
        return {}, 1

    commit = ensure(store, "s", {"a": 1}, work, lease.check)
    assert find_commit(store, "s") == commit
    assert [stored.read(store) for stored in commit.objects()] == [b"data"]
    with pytest.raises(ResumableError, match="another driver"):
        Lease(store).check()
    lease.release()


def test_a_missing_bucket_is_one_line_that_names_it(server: None) -> None:
    with pytest.raises(InputError, match=r"s3://nosuch/x/k cannot be written .*create the bucket"):
        open_store("s3://nosuch/x").put("k", b"")


def test_other_schemes_are_refused() -> None:
    with pytest.raises(InputError, match="gs://"):
        open_store("gs://bucket/run")


def test_objects_have_sizes_and_ages_and_what_stands_for_a_folder_goes_with_the_last_of_them(
    store: ObjectStore,
) -> None:
    layout.begin(store, {"run": {}}, {"pool": []}, lambda: None, layout.Classes(10))
    store.put(".ray/x/snapshot.json", b"abc")
    store.put("mine.txt", b"mine")
    before = set(store.list(""))
    bucket, _, prefix = store.url.removeprefix("s3://").partition("/")
    for folder in (".ray/", ".ray/x/", ".ray/full/"):
        boto3.client("s3").put_object(Bucket=bucket, Key=f"{prefix}/{folder}", Body=b"")
    store.put(".ray/full/notes-one.txt", b"")
    ages = {it.key: it for it in store.ages("")}
    assert set(ages) == before | {".ray/full/notes-one.txt"}
    assert ages[".ray/x/snapshot.json"].size == 3
    assert all(-2 < it.seconds < 60 for it in ages.values())
    found = gc.survey(store, set())
    assert (found.old, found.unknown) == ((), ("mine.txt",))
    young = [it for it in found.young if "full" not in it.key]
    assert [it.key for it in gc.remove(store, young, lambda: None)] == [".ray/x/snapshot.json"]
    assert set(store.list("")) == before - {".ray/x/snapshot.json"} | {".ray/", ".ray/full/", ".ray/full/notes-one.txt"}
    store.delete(".ray/full/notes-one.txt")
    store.prune(".ray")
    assert set(store.list("")) == before - {".ray/x/snapshot.json"}
