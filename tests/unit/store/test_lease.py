"""One driver at a time: who may write to a run, and when another may take over."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.leases import Take, dead_pid, held_by

from ray_ns.errors import ResumableError
from ray_ns.seals import canonical, unseal
from ray_ns.store import lease as leases
from ray_ns.store.lease import HEARTBEAT, Lease
from ray_ns.store.objects import LocalStore

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
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    fake = SimpleNamespace(monotonic=lambda: clock.now, time=lambda: clock.now, sleep=clock.sleep)
    monkeypatch.setattr(leases, "time", fake)
    return clock


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
