"""One driver at a time: who may write to a run, and when another may take over."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ray_ns.errors import IntegrityError, ResumableError
from ray_ns.seals import canonical, seal, unseal
from ray_ns.store import lease as leases
from ray_ns.store.lease import HEARTBEAT, Lease, fence, this_process
from ray_ns.store.objects import LocalStore

Take = Callable[..., Lease]

HOLDER = """
import sys
from ray_ns.store.lease import Lease
from ray_ns.store.objects import LocalStore
lease = Lease(LocalStore(sys.argv[1]))
lease.check()
print("held", flush=True)
sys.stdin.readline()
lease.release()
"""


class Clock:
    """Time that passes when somebody sleeps, and what happens meanwhile."""

    def __init__(self) -> None:
        self.now = 5000.0
        self.meanwhile: Callable[[], None] = lambda: None

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds
        self.meanwhile()


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    fake = SimpleNamespace(monotonic=lambda: clock.now, time=lambda: clock.now, sleep=clock.sleep)
    monkeypatch.setattr(leases, "time", fake)
    return clock


@pytest.fixture
def new(store: LocalStore) -> Iterator[Take]:
    """A lease on the store, released when the test ends."""
    made: list[Lease] = []

    def lease(on: Any = None, **how: Any) -> Lease:
        made.append(Lease(on or store, **how))
        return made[-1]

    yield lease
    for lease_ in made:
        lease_.release()


def held_by(store: LocalStore, epoch: int, **who: Any) -> None:
    """Epoch ``epoch`` as another driver left it on disk."""
    holder = {"lease": f"lease {epoch}", **this_process(), **who}
    assert store.put_if_absent(f"driver/{epoch:06d}.json", seal({"epoch": epoch, **holder}))
    store.put(HEARTBEAT, canonical({"epoch": epoch, "time": 1.0, **holder}))


def dead_pid() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def epochs(store: LocalStore) -> list[str]:
    return [key for key in store.list("driver/") if key != HEARTBEAT]


def test_a_lease_is_taken_at_the_first_check_only(store: LocalStore, new: Take) -> None:
    lease = new()
    assert list(store.list("")) == []
    for _ in range(3):
        lease.check()
    assert lease.holder.epoch == 1
    assert epochs(store) == ["driver/000001.json"]
    record = unseal(store.get("driver/000001.json") or b"", "driver/000001.json")
    assert (record["epoch"], record["pid"]) == (1, os.getpid())


def test_a_lease_that_was_never_taken_leaves_nothing(store: LocalStore) -> None:
    Lease(store).release()
    assert list(store.list("")) == []


def test_a_second_driver_is_refused_while_the_first_lives(store: LocalStore, new: Take) -> None:
    new().check()
    second = new()
    with pytest.raises(ResumableError, match="another driver is at work") as caught:
        second.check()
    assert caught.value.exit_code == 3
    assert store.url in str(caught.value)
    assert second.holder is None
    assert epochs(store) == ["driver/000001.json"]


def test_after_a_release_the_next_driver_goes_on_at_once(store: LocalStore, new: Take, clock: Clock) -> None:
    for epoch in (1, 2, 3):
        lease = new()
        lease.check()
        assert lease.holder.epoch == epoch
        lease.release()
        assert json.loads(store.get(HEARTBEAT) or b"") == {**vars(lease.holder), "released": True}
    assert clock.now == 5000.0, "nobody waited"
    assert len(epochs(store)) == 3


def test_a_release_of_an_earlier_epoch_does_not_free_a_later_one(store: LocalStore, new: Take) -> None:
    held_by(store, 2)
    store.put(HEARTBEAT, canonical({"epoch": 1, "released": True}))
    with pytest.raises(ResumableError, match="epoch 2"):
        new().check()


@pytest.mark.parametrize("who", ["dead", "recycled"])
def test_a_holder_whose_process_is_gone_from_this_host_is_followed_at_once(
    store: LocalStore, new: Take, clock: Clock, who: str
) -> None:
    pid = {"pid": dead_pid()} if who == "dead" else {"pid": os.getpid()}  # recycled: the number is someone else's now
    held_by(store, 1, began="1", **pid)
    lease = new()
    lease.check()
    assert lease.holder.epoch == 2
    assert clock.now == 5000.0


def test_a_driver_killed_with_the_lease_is_followed_and_one_that_lives_is_not(store: LocalStore, new: Take) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, store.url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ResumableError, match="another driver is at work"):
            new().check()
        holder.kill()
        os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)  # dead, and nobody has reaped it: a zombie
        lease = new()
        lease.check()
        assert lease.holder.epoch == 2
    finally:
        holder.kill()
        holder.communicate()


@pytest.mark.parametrize("stale", [0.5, 30.0])
def test_a_heartbeat_from_another_host_that_stands_still_is_followed_after_the_stale_time(
    store: LocalStore, new: Take, clock: Clock, stale: float
) -> None:
    held_by(store, 1, host="elsewhere")
    lease = new(stale_seconds=stale)
    lease.check()
    assert lease.holder.epoch == 2
    assert stale <= clock.now - 5000.0 <= 1.5 * stale


@pytest.mark.parametrize("moves_at", [1.0, 15.0, 27.0])
def test_a_heartbeat_from_another_host_that_moves_is_left_alone(
    store: LocalStore, new: Take, clock: Clock, moves_at: float
) -> None:
    held_by(store, 1, host="elsewhere")

    def beat() -> None:
        if clock.now - 5000.0 >= moves_at:
            # a host whose clock stands at 1970 lives as well
            store.put(HEARTBEAT, canonical({"epoch": 1, "time": clock.now - 5000.0, "host": "elsewhere"}))

    clock.meanwhile = beat
    with pytest.raises(ResumableError, match="another driver is at work"):
        new(stale_seconds=30.0).check()
    assert epochs(store) == ["driver/000001.json"]


def test_a_holder_that_died_before_its_first_heartbeat_is_followed(store: LocalStore, new: Take, clock: Clock) -> None:
    held_by(store, 1, host="elsewhere")
    store.delete(HEARTBEAT)
    lease = new()
    lease.check()
    assert lease.holder.epoch == 2


@pytest.mark.parametrize("garbage", [b"", b"\x00\xff", b'{"epoch": 1', b"[]", b"null"])
def test_a_harmed_heartbeat_does_not_bar_the_run_for_ever(store: LocalStore, new: Take, garbage: bytes) -> None:
    held_by(store, 1, pid=dead_pid(), began="1")
    store.put(HEARTBEAT, garbage)
    lease = new()
    lease.check()
    assert lease.holder.epoch == 2


def test_the_one_taken_over_from_may_write_no_more(store: LocalStore, new: Take) -> None:
    old = new()
    old.check()
    held_by(store, 2, host="elsewhere")
    for check in (old.check, fence(store, old.holder)):
        with pytest.raises(ResumableError, match="taken over") as caught:
            check()
        assert caught.value.exit_code == 3


def test_a_fence_lets_the_holder_pass(store: LocalStore, new: Take) -> None:
    lease = new()
    lease.check()
    fence(store, lease.holder)()


def test_epochs_only_grow_even_where_a_listing_shows_nothing(store: LocalStore, new: Take) -> None:
    class Blind(LocalStore):
        def list(self, prefix: str) -> Iterator[str]:
            return iter(())

    for epoch in (1, 2, 3):
        held_by(store, epoch, pid=dead_pid(), began="1")
    lease = new(Blind(store.root))
    lease.check()
    assert lease.holder.epoch == 4


class Overtaken(LocalStore):
    """A store on which somebody else takes the lease just before our own record is written."""

    def __init__(self, root: Path, other: Callable[[], None]) -> None:
        super().__init__(root)
        self.other: Callable[[], None] | None = other

    def put_if_absent(self, key: str, data: bytes) -> bool:
        other, self.other = self.other, None
        if other is not None:
            other()
        return super().put_if_absent(key, data)


def test_of_two_drivers_that_start_at_once_one_is_refused(store: LocalStore, new: Take) -> None:
    lease = new(Overtaken(store.root, lambda: held_by(store, 1, host="elsewhere")))
    with pytest.raises(ResumableError, match="just started"):
        lease.check()
    assert lease.holder is None


def test_of_two_sessions_in_one_process_that_start_at_once_one_is_refused(store: LocalStore, new: Take) -> None:
    first = new()
    second = new(Overtaken(store.root, first.check))
    with pytest.raises(ResumableError, match="just started"):
        second.check()
    assert (first.holder.epoch, second.holder) == (1, None)


def test_the_heart_beats_with_the_progress_of_the_run(
    store: LocalStore, new: Take, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "BEAT_SECONDS", 0.002)
    beats: list[int] = []
    third = threading.Event()

    def progress() -> dict[str, Any]:
        beats.append(1)
        if len(beats) >= 3:
            third.set()
        return {"stage": "label", "done": len(beats)}

    lease = new()
    lease.beat_with(progress)
    lease.check()
    assert third.wait(10)
    beat = json.loads(store.get(HEARTBEAT) or b"")
    assert beat["done"] >= 2
    assert (beat["epoch"], beat["stage"], beat["pid"]) == (1, "label", os.getpid())


def test_the_heart_goes_on_after_a_write_that_failed(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "BEAT_SECONDS", 0.002)
    again = threading.Event()

    class Full(LocalStore):
        beats = 0

        def put(self, key: str, data: bytes) -> None:
            self.beats += 1
            if self.beats in {2, 3}:
                raise ResumableError("disk full")
            super().put(key, data)
            if self.beats > 3:
                again.set()

    lease = Lease(Full(store.root))
    lease.check()
    try:
        assert again.wait(10)
    finally:
        lease.release()


def test_after_a_release_the_heart_stands_still(store: LocalStore, new: Take, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "BEAT_SECONDS", 0.001)
    lease = new()
    lease.check()
    lease.release()
    assert not any(thread.name == "heartbeat" for thread in threading.enumerate())
    assert json.loads(store.get(HEARTBEAT) or b"")["released"] is True


def begun_anew(store: LocalStore) -> None:
    """The run's directory is deleted under its driver, and another driver begins there."""
    shutil.rmtree(store.root)
    held_by(store, 1, lease="another")


def deleted(store: LocalStore) -> None:
    shutil.rmtree(store.root)


def taken_over(store: LocalStore) -> None:
    held_by(store, 2)


def harmed(store: LocalStore) -> None:
    store.put("driver/000001.json", b"{}")


LOSSES = (begun_anew, deleted, taken_over, harmed)


@pytest.mark.parametrize("lose", LOSSES)
def test_who_has_lost_the_lease_may_write_no_more(
    store: LocalStore, new: Take, lose: Callable[[LocalStore], None]
) -> None:
    lease = new()
    check = fence(store, lease.held())
    lose(store)
    for call in (check, lease.check, lease.held):
        with pytest.raises(IntegrityError if lose is harmed else ResumableError) as caught:
            call()
        assert caught.value.exit_code == (4 if lose is harmed else 3)
        assert store.url in str(caught.value) or lose is harmed


@pytest.mark.parametrize("lose", LOSSES)
def test_the_heart_says_so_when_the_lease_is_lost_and_writes_nothing_more(
    store: LocalStore, new: Take, monkeypatch: pytest.MonkeyPatch, lose: Callable[[LocalStore], None]
) -> None:
    monkeypatch.setattr(leases, "BEAT_SECONDS", 0.002)
    inside, go_on, told = threading.Event(), threading.Event(), threading.Event()

    def progress() -> dict[str, Any]:  # the heart stands still until the lease is lost: in its first beat
        if threading.current_thread().name == "heartbeat":
            inside.set()
            go_on.wait(10)
            raise ResumableError("this beat is not written")
        return {}

    lease = new()
    lease.beat_with(progress)
    lease.when_lost(lambda error: told.set())
    lease.check()
    assert inside.wait(10)
    lose(store)
    before = {key: store.get(key) for key in store.list("")}
    go_on.set()
    assert told.wait(10)
    lease.release()
    assert {key: store.get(key) for key in store.list("")} == before
    if lose is deleted:
        assert not store.root.exists()


def test_a_release_by_one_that_was_deleted_frees_nobody_elses_lease(store: LocalStore, new: Take) -> None:
    held_by(store, 1, lease="another")
    store.put(HEARTBEAT, canonical({"epoch": 1, "lease": "deleted", "released": True}))
    with pytest.raises(ResumableError, match="another driver is at work"):
        new().check()


@pytest.mark.parametrize(
    "name",
    ["driver/000009 (1).json", "driver/000009 copy.json", "driver/9.json", "driver/000009.json~", "driver/²²²²²².json"],
)
def test_names_of_sync_clients_are_no_epochs(store: LocalStore, new: Take, name: str) -> None:
    (store.root / "driver").mkdir(parents=True)
    (store.root / name).write_bytes(b"{}")
    lease = new()
    assert lease.held().epoch == 1


def test_what_killed_writers_left_is_removed_by_the_next_driver(store: LocalStore, new: Take) -> None:
    left = store.root / ".tmp"
    left.mkdir(parents=True)
    (left / "0123").write_bytes(b"half")
    (left / "a folder").mkdir()
    lease = new()
    lease.check()
    assert [path.name for path in left.iterdir()] == ["a folder"]
