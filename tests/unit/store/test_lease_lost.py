"""The heartbeat of whoever may write to a run, and that it writes nothing more once it may not."""

import json
import os
import shutil
import threading
from collections.abc import Callable
from typing import Any

import pytest
from support.leases import Take, held_by

from ray_ns.errors import IntegrityError, ResumableError
from ray_ns.store import lease as leases
from ray_ns.store.lease import HEARTBEAT, Lease, fence
from ray_ns.store.objects import LocalStore


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
