"""The commit protocol: made once, whole or not at all, the same bytes after any crash, and rot is found."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from support.dying import Killed
from support.watched import WatchedStore

from ray_ns.errors import InputError, IntegrityError, ResumableError
from ray_ns.store.commit import Commit, Output, Part, ensure, find_commit
from ray_ns.store.objects import LocalStore

PREFIX = "rounds/1/label"
INPUTS = {"seed": 3, "teacher": "abc", "lr": 0.1}
PARTS = 3
OPERATIONS = 20  # calls to the store that one uninterrupted ensure makes; a test below holds it to that
WRITES = 12  # plan, (2 data objects and a done record) x 3, commit, its register


Work = Callable[[Output], tuple[Mapping[str, Any], int]]


def labelling(published: list[int] | None = None, parts: int = PARTS, text: str = "") -> Work:
    """A stage's work, as the engine does it: what is done already is not done again."""

    def work(stage: Output) -> tuple[Mapping[str, Any], int]:
        done = stage.done()
        for part in range(parts):
            if part not in done:
                data = {"labels.bin": bytes([part]) * 50, "more.bin": f"part {part}{text}".encode()}
                done[part] = stage.publish(part, data, {"images": 10 + part, "share": part / 3})
                if published is not None:
                    published.append(part)
        return {"images": sum(done[part].facts["images"] for part in range(parts))}, parts

    return work


def no_work(_: Output) -> tuple[Mapping[str, Any], int]:
    raise AssertionError("a committed stage must not be worked on")


def free() -> None:
    """A fence nobody has run into."""


def make(root: Path, **how: Any) -> Commit:
    return ensure(LocalStore(root), PREFIX, INPUTS, labelling(**how), free)


def tree(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def named(commit: Commit) -> list[str]:
    return [f"{PREFIX}/commit.json", *(stored.key for stored in commit.objects())]


def flip(store: LocalStore, key: str, bit: int = 0) -> None:
    data = bytearray(store.path(key).read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    store.path(key).write_bytes(bytes(data))


def test_a_commit_names_every_part_with_its_bytes_and_facts(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    commit = ensure(store, PREFIX, INPUTS, labelling(), free)
    assert commit == find_commit(store, PREFIX)
    assert commit.stage == PREFIX
    assert commit.summary == {"images": 33}
    assert [part.facts["images"] for part in commit.parts] == [10, 11, 12]
    assert [part.objects["labels.bin"].read(store) for part in commit.parts] == [bytes([k]) * 50 for k in range(PARTS)]
    assert {stored.size for part in commit.parts for stored in part.objects.values()} == {50, 6}


def test_nothing_exists_before_the_commit(tmp_path: Path) -> None:
    seen: list[Commit | None] = []

    def work(stage: Output) -> tuple[Mapping[str, Any], int]:
        result = labelling()(stage)
        seen.append(find_commit(LocalStore(tmp_path), PREFIX))
        return result

    ensure(LocalStore(tmp_path), PREFIX, INPUTS, work, free)
    assert seen == [None]


def test_a_committed_stage_is_only_read(tmp_path: Path) -> None:
    first = make(tmp_path)
    before = tree(tmp_path)
    store = WatchedStore(tmp_path)
    fences: list[int] = []
    assert ensure(store, PREFIX, INPUTS, no_work, lambda: fences.append(1)) == first
    assert store.writes() == []
    assert fences == [], "reading a finished run must not take the lease"
    assert tree(tmp_path) == before


def test_the_same_work_gives_the_same_bytes_in_another_place_and_order(tmp_path: Path) -> None:
    def backwards(stage: Output) -> tuple[Mapping[str, Any], int]:
        summary: Mapping[str, Any] = {}
        for part in reversed(range(PARTS)):
            data = {"more.bin": f"part {part}".encode(), "labels.bin": bytes([part]) * 50}
            stage.publish(part, data, {"share": part / 3, "images": 10 + part})
            summary = {"images": 33}
        return summary, PARTS

    make(tmp_path / "one")
    ensure(LocalStore(tmp_path / "two"), PREFIX, dict(reversed(INPUTS.items())), backwards, free)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    root = tmp_path_factory.mktemp("uninterrupted")
    make(root)
    return tree(root)


def test_the_operations_below_are_all_there_are(tmp_path: Path) -> None:
    store = WatchedStore(tmp_path)
    ensure(store, PREFIX, INPUTS, labelling(), free)
    assert len(store.operations) == OPERATIONS, "set OPERATIONS to this, so that a crash is tried at each one"
    assert len(store.writes()) == WRITES


@pytest.mark.parametrize("operation", range(OPERATIONS))
def test_after_a_crash_at_any_operation_the_same_call_ends_in_the_same_bytes(
    tmp_path: Path, uninterrupted: dict[str, bytes], operation: int
) -> None:
    with pytest.raises(Killed):
        ensure(WatchedStore(tmp_path, die_at=operation), PREFIX, INPUTS, labelling(), free)
    found = find_commit(LocalStore(tmp_path), PREFIX)
    recorded = {int(Path(key).stem) for key in LocalStore(tmp_path).list(f"{PREFIX}/done/")}

    published: list[int] = []
    ensure(WatchedStore(tmp_path), PREFIX, INPUTS, labelling(published), free)
    assert tree(tmp_path) == uninterrupted
    if found is None:
        assert published == sorted({0, 1, 2} - recorded), "what was done is not redone"
    else:
        assert published == []


def test_parts_that_an_earlier_attempt_finished_are_handed_over_with_their_objects(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)

    def dies(stage: Output) -> tuple[Mapping[str, Any], int]:
        labelling(parts=2)(stage)
        raise Killed

    with pytest.raises(Killed):
        ensure(store, PREFIX, INPUTS, dies, free)
    seen: list[dict[int, Part]] = []

    def work(stage: Output) -> tuple[Mapping[str, Any], int]:
        seen.append(stage.done())
        return labelling()(stage)

    commit = ensure(store, PREFIX, INPUTS, work, free)
    assert seen == [{0: commit.parts[0], 1: commit.parts[1]}]


def test_what_a_failed_attempt_left_beside_a_part_is_not_in_the_commit(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put(f"{PREFIX}/data/000000-0123456789abcdef/labels.bin", b"of an attempt that died")
    assert not any("0123456789abcdef" in stored.key for stored in make(tmp_path).objects())


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("change", [{"seed": 4}, {"lr": 0.1000001}, {"more": None}])
def test_other_inputs_are_refused_before_any_work(tmp_path: Path, finished: bool, change: dict[str, Any]) -> None:
    if finished:
        make(tmp_path)
    else:
        with pytest.raises(Killed):
            ensure(WatchedStore(tmp_path, die_at=4), PREFIX, INPUTS, labelling(), free)
    before = tree(tmp_path)
    with pytest.raises(InputError, match=PREFIX) as caught:
        ensure(LocalStore(tmp_path), PREFIX, {**INPUTS, **change}, no_work, free)
    assert caught.value.exit_code == 2
    assert tree(tmp_path) == before


def test_a_stage_that_lacks_a_part_is_not_committed(tmp_path: Path) -> None:
    def lazy(stage: Output) -> tuple[Mapping[str, Any], int]:
        stage.publish(0, {}, {})
        stage.publish(2, {}, {})
        return {}, 4

    with pytest.raises(ResumableError, match=r"\[1, 3\] of 4") as caught:
        ensure(LocalStore(tmp_path), PREFIX, INPUTS, lazy, free)
    assert caught.value.exit_code == 3
    assert find_commit(LocalStore(tmp_path), PREFIX) is None


def test_the_second_to_publish_a_part_reads_what_the_first_stored(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    first = Output(store, PREFIX, free).publish(0, {"x": b"first"}, {"who": 1})
    second = Output(store, PREFIX, free).publish(0, {"x": b"second"}, {"who": 2})
    assert second == first
    assert second.objects["x"].read(store) == b"first"
    assert second.facts == {"who": 1}


def test_publishing_the_same_part_again_changes_nothing(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    first = Output(store, PREFIX, free).publish(0, {"x": b"same"}, {"who": 1})
    before = tree(tmp_path)
    assert Output(store, PREFIX, free).publish(0, {"x": b"same"}, {"who": 1}) == first
    assert tree(tmp_path) == before


def test_of_two_that_work_at_once_both_get_the_commit_of_the_first(tmp_path: Path) -> None:
    others: list[Commit] = []

    def overtaken(stage: Output) -> tuple[Mapping[str, Any], int]:
        others.append(make(tmp_path, text=" of another machine"))
        return labelling()(stage)

    mine = ensure(LocalStore(tmp_path), PREFIX, INPUTS, overtaken, free)
    assert mine == others[0]
    assert mine.parts[0].objects["more.bin"].read(LocalStore(tmp_path)) == b"part 0 of another machine"


@pytest.mark.parametrize("passed", range(1 + 2 * PARTS + 1))
def test_once_another_driver_took_over_nothing_more_is_written(tmp_path: Path, passed: int) -> None:
    parts = (name for part in range(PARTS) for name in (f"data/{part:06d}-", f"done/{part:06d}.json"))
    written = ["plan.json", *parts, "commit.json"]
    calls: list[int] = []

    def fence() -> None:
        if len(calls) == passed:
            raise ResumableError("another driver has taken over")
        calls.append(1)

    with pytest.raises(ResumableError, match="taken over"):
        ensure(LocalStore(tmp_path), PREFIX, INPUTS, labelling(), fence)
    found = {re.sub(r"(data/\d+-).*", r"\1", key.removeprefix(f"{PREFIX}/")) for key in tree(tmp_path)}
    assert found == set(written[:passed])


@pytest.mark.parametrize("harm", ["flipped", "missing"])
def test_a_reader_of_a_harmed_object_gets_an_error_that_names_it(tmp_path: Path, harm: str) -> None:
    store = LocalStore(tmp_path)
    stored = next(make(tmp_path).objects())
    if harm == "missing":
        store.delete(stored.key)
    else:
        flip(store, stored.key)
    with pytest.raises(IntegrityError, match=stored.key) as caught:
        stored.read(store)
    assert caught.value.exit_code == 4
    assert stored.sha256 in str(caught.value)


@pytest.mark.parametrize("record", ["plan.json", "done/000000.json", "commit.json"])
def test_a_harmed_record_stops_the_stage_and_is_named(tmp_path: Path, record: str) -> None:
    store = LocalStore(tmp_path)
    make(tmp_path)
    if record != "commit.json":
        store.delete(f"{PREFIX}/commit.json")
    flip(store, f"{PREFIX}/{record}", 40)
    with pytest.raises(IntegrityError, match=f"{PREFIX}/{record}"):
        ensure(store, PREFIX, INPUTS, labelling(), free)


def test_the_digest_of_a_commit_changes_with_any_byte_it_names(tmp_path: Path) -> None:
    one = make(tmp_path / "one")
    other = make(tmp_path / "other", text="!")
    assert one.inputs == other.inputs
    assert one.digest != other.digest
