"""What a fork takes: whole commits made from equal inputs, the same bytes after a kill at any point; what it says."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support.dying import Killed
from support.in_process import undated
from support.watched import WatchedStore

from ray_ns.engine.taking import Taking
from ray_ns.errors import IntegrityError
from ray_ns.observe import Reporter
from ray_ns.store.commit import Commit, Output, ensure
from ray_ns.store.fork import ForkedStore
from ray_ns.store.objects import LocalStore, ObjectStore

PREFIX = "rounds/1/label"
INPUTS = {"teacher": "ab", "label": {"top": 10}, "share": 0.1}
OPERATIONS = 12  # calls to its own store that one uninterrupted taking makes; a test below holds it to that


def free() -> None:
    """A fence nobody has run into."""


def work(output: Output) -> tuple[Mapping[str, Any], int]:
    for part in range(2):
        output.publish(part, {"labels.parquet": b"labels %d" % part}, {"share": part / 3})
    return {"rows": 12, "share": 1 / 3}, 2


def no_work(_: Output) -> tuple[Mapping[str, Any], int]:
    raise AssertionError("what is taken is not made")


def taken(store: ObjectStore, inputs: Mapping[str, Any] = INPUTS, prefix: str = PREFIX) -> Commit:
    """As ``Run.ensure`` does it."""
    taking = Taking(store, Reporter("plain"))

    def find(output: Output) -> Any:
        found = taking.find(prefix, dict(inputs))
        return no_work(output) if found is None else (found.summary, found.parts)

    made = ensure(store, prefix, inputs, find, free)
    taking.along(prefix, made, ("counts",), free)
    taking.tell()
    return made


def records(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*.json")}


@pytest.fixture
def other(tmp_path: Path) -> LocalStore:
    store = LocalStore(tmp_path / "other")
    labels = ensure(store, PREFIX, INPUTS, work, free)
    ensure(store, f"{PREFIX}/counts", {"labels": labels.digest}, lambda _: ({}, []), free)
    return store


def test_what_is_taken_is_what_it_would_have_made(other: LocalStore, tmp_path: Path, capsys: Any) -> None:
    made = taken(ForkedStore(LocalStore(tmp_path / "own"), other))
    own = records(tmp_path / "own")
    assert own == {name: data for name, data in records(other.root).items() if "/done/" not in name}
    assert not (tmp_path / "own" / PREFIX / "data").exists()
    store = ForkedStore(LocalStore(tmp_path / "own"), other)
    assert [it.read(store) for it in made.objects()] == [b"labels 0", b"labels 1"]
    assert undated(capsys.readouterr().err) == f"taken from {other.url}: 1 stage ({PREFIX})\n"


def test_the_operations_below_are_all_there_are(other: LocalStore, tmp_path: Path) -> None:
    own = WatchedStore(tmp_path / "own")
    taken(ForkedStore(own, other))
    assert len(own.operations) == OPERATIONS, "set OPERATIONS to this, so that a kill is tried at each one"


@pytest.mark.parametrize("operation", range(OPERATIONS))
def test_a_fork_killed_at_any_point_of_taking_ends_in_the_same_bytes(
    other: LocalStore, tmp_path: Path, operation: int
) -> None:
    taken(ForkedStore(LocalStore(tmp_path / "whole"), other))
    with pytest.raises(Killed):
        taken(ForkedStore(WatchedStore(tmp_path / "own", die_at=operation), other))
    taken(ForkedStore(LocalStore(tmp_path / "own"), other))
    assert records(tmp_path / "own") == records(tmp_path / "whole")


def test_a_stage_with_another_input_is_not_taken_and_the_input_is_named(
    other: LocalStore, tmp_path: Path, capsys: Any
) -> None:
    store = ForkedStore(LocalStore(tmp_path / "own"), other)
    taking = Taking(store, Reporter("plain"))
    assert taking.find(PREFIX, INPUTS) is not None
    assert taking.find("rounds/1/select", {}) is None
    assert taking.find(PREFIX, {**INPUTS, "label": {"top": 5}, "teacher": "cd"}) is None
    assert undated(capsys.readouterr().err).splitlines() == [
        f"taken from {other.url}: 1 stage ({PREFIX})",
        "rounds/1/select is made here: the other run has not finished it",
    ]
    again = Taking(store, Reporter("plain"))
    assert again.find(PREFIX, {**INPUTS, "label": {"top": 5}, "teacher": "cd"}) is None
    assert (
        undated(capsys.readouterr().err)
        == f"{PREFIX} is made here: in the other run it differs in label.top, teacher\n"
    )


def test_only_what_is_whole_is_taken(tmp_path: Path) -> None:
    other = LocalStore(tmp_path / "other")

    def stopped(output: Output) -> Any:
        output.publish(0, {"labels.parquet": b"labels 0"}, {})
        raise Killed

    with pytest.raises(Killed):
        ensure(other, PREFIX, INPUTS, stopped, free)
    assert Taking(ForkedStore(LocalStore(tmp_path / "own"), other), Reporter("plain")).find(PREFIX, INPUTS) is None


def test_what_lies_within_another_runs_stage_comes_along_only_with_that_stage(
    other: LocalStore, tmp_path: Path
) -> None:
    store = ForkedStore(LocalStore(tmp_path / "own"), other)
    made = ensure(store, PREFIX, {"teacher": "ef"}, work, free)
    Taking(store, Reporter("plain")).along(PREFIX, made, ("counts",), free)
    assert not (tmp_path / "own" / PREFIX / "counts").exists()


def test_a_run_that_is_no_fork_takes_nothing(other: LocalStore, capsys: Any) -> None:
    taking = Taking(other, Reporter("plain"))
    assert taking.find(PREFIX, INPUTS) is None
    taking.tell()
    assert undated(capsys.readouterr().err) == ""


def test_a_damaged_commit_of_the_other_run_is_named_with_its_place(other: LocalStore, tmp_path: Path) -> None:
    path = other.path(f"{PREFIX}/commit.json")
    path.write_bytes(path.read_bytes().replace(b"rows", b"raws"))
    with pytest.raises(IntegrityError, match=other.url):
        taken(ForkedStore(LocalStore(tmp_path / "own"), other))
