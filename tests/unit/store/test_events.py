"""``events.jsonl`` of a run: what it holds, who writes it, and that it is a hint."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.held import HOLDER, hold

from ray_ns.errors import ResumableError
from ray_ns.observe import Reporter
from ray_ns.store import events
from ray_ns.store.events import EVENTS, Events, full_key
from ray_ns.store.lease import Holder
from ray_ns.store.objects import LocalStore


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    store = LocalStore(tmp_path / "run")
    hold(store)
    return store


def keeping(store: LocalStore, holder: Holder | None = HOLDER) -> Events:
    return Events(store, "run-1a2b3c", lambda: holder)


def told(store: LocalStore, key: str = EVENTS) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (store.get(key) or b"").splitlines()]


def say(kept: Events, *numbers: int) -> None:
    for number in numbers:
        kept({"time": "t", "event": "note", "text": str(number)})


def texts(store: LocalStore, key: str = EVENTS) -> list[int]:
    return [int(event["text"]) for event in told(store, key)]


def test_every_event_is_a_line_with_what_is_known_and_no_more(store: LocalStore) -> None:
    kept, reporter = keeping(store), Reporter("plain")
    reporter.sinks.append(kept)
    reporter.begin("rounds/0/train", 100, "steps")
    reporter.waiting("4 CPUs wanted, 2 there")
    reporter.progress(10, "top-1 50.0% at step 5", loss=0.5, gap=1.0)
    reporter.warn("ümlaut\nand line")
    reporter.failed("no more disk", 3)
    kept.close()
    begin, waiting, warning, error = told(store)
    same = {"run": "run-1a2b3c", "stage": "rounds/0/train", "total": 100, "unit": "steps"}
    assert begin.pop("time").endswith("Z")
    assert begin == {**same, "event": "begin", "done": 0, "rate": 0, "text": "rounds/0/train: begins"}
    assert waiting["waiting"] == "4 CPUs wanted, 2 there"
    assert (warning["event"], warning["loss"], warning["done"]) == ("warning", 0.5, 10)
    assert warning["text"] == "warning: ümlaut\nand line"
    assert (error["event"], error["text"], error["exit_code"]) == ("error", "no more disk", 3)
    assert all({*event} <= {*events.FIELDS} for event in (begin, waiting, warning, error))


@pytest.mark.parametrize("kind", ["end", "error"])
def test_the_end_of_a_stage_and_a_failure_are_written_at_once(store: LocalStore, kind: str) -> None:
    kept = keeping(store)
    kept({"event": kind, "text": "1"})
    for _ in range(1000):
        if store.get(EVENTS):
            break
        kept._wake.wait(0.01)
    assert texts(store) == [1]
    kept.close()


def test_full_files_move_and_a_resumed_driver_goes_on(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "LINES", 3)
    for first in (0, 4, 8):
        kept = keeping(store)
        say(kept, first, first + 1)
        kept._write()
        say(kept, first + 2, first + 3)
        kept.close()
    assert texts(store) == [9, 10, 11]
    assert [texts(store, full_key(number)) for number in (1, 2, 3)] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert store.get(full_key(4)) is None


def test_a_kill_between_the_two_writes_doubles_no_line(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "LINES", 3)
    say(kept := keeping(store), 0, 1)
    kept.close()
    before = store.get(EVENTS) or b""
    say(again := keeping(store), 2, 3)
    again.close()
    store.put(EVENTS, before)  # as if it had been killed after line 2 had moved
    say(last := keeping(store), 4)
    last.close()
    assert (texts(store, full_key(1)), texts(store)) == ([0, 1, 2], [4])


@pytest.mark.parametrize("holder", [None, Holder(1, "f" * 32), Holder(7, HOLDER.lease)])
def test_who_does_not_hold_the_lease_writes_nothing(store: LocalStore, holder: Holder | None) -> None:
    before = list(store.list(""))
    kept = keeping(store, holder)
    say(kept, 1)
    kept.close()
    assert list(store.list("")) == before


def test_what_came_before_the_lease_is_written_after_it(store: LocalStore) -> None:
    held: list[Holder] = []
    kept = Events(store, "x", lambda: held[0] if held else None)
    say(kept, 1)
    kept._write()
    assert store.get(EVENTS) is None
    held.append(HOLDER)
    say(kept, 2)
    kept.close()
    assert texts(store) == [1, 2]


def test_a_store_that_fails_costs_nothing_and_gets_all_lines_later(store: LocalStore) -> None:
    class Failing(LocalStore):
        broken = True

        def put(self, key: str, data: bytes) -> None:
            if self.broken:
                raise ResumableError("the disk is full")
            super().put(key, data)

    failing = Failing(store.root)
    kept = keeping(failing)
    say(kept, 1)
    with pytest.raises(ResumableError):
        kept._write()
    failing.broken = False
    say(kept, 2)
    kept.close()
    assert texts(store) == [1, 2]


@pytest.mark.parametrize("harm", [b"", b"\x00\xff", b"no json\n", b"[" * 9999])
def test_a_harmed_file_is_gone_on_with(store: LocalStore, harm: bytes) -> None:
    store.put(EVENTS, harm)
    kept = keeping(store)
    say(kept, 1)
    kept.close()
    assert json.loads((store.get(EVENTS) or b"").splitlines()[-1])["text"] == "1"
