"""Where a run stands, read from its directory alone."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from ray_ns.engine import ingest, stages
from ray_ns.errors import InputError, IntegrityError
from ray_ns.seals import canonical, seal
from ray_ns.store import hints, layout
from ray_ns.store.commit import Output, ensure
from ray_ns.store.lease import HEARTBEAT, STALE_SECONDS, Lease
from ray_ns.store.objects import LocalStore
from ray_ns.store.status import PROGRESS as TRAINING
from ray_ns.store.status import existing, read_status, run_order, scored

BEAT = {"epoch": 3, "host": "h", "pid": 1, "began": "1"}
PROGRESS = {"stage": "rounds/1/label", "done": 40, "total": 100, "unit": "images"}
GOES_ON = "no driver at work; the same command goes on from here"

ORDER = [*(it.name for it in ingest.STAGES), *stages.names()]


def free() -> None:
    """A fence nobody has run into."""


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """A run that has begun and done nothing yet."""
    store = LocalStore(tmp_path)
    layout.begin(store, {"run": {}}, {}, free, layout.Classes(10))
    return store


def beat(store: LocalStore, age: float = 0.0, **progress: Any) -> None:
    store.put(HEARTBEAT, canonical({**BEAT, "time": time.time() - age, **progress}))


def commit(store: LocalStore, prefix: str, parts: int) -> None:
    def work(stage: Output) -> tuple[dict[str, Any], int]:
        for part in range(parts):
            stage.publish(part, {"x": bytes([part])}, {})
        return {}, parts

    ensure(store, prefix, {}, work, free)


def test_a_new_run_has_no_stages_and_no_driver(store: LocalStore) -> None:
    assert read_status(store.url, ORDER) == {"stages": [], "finished": False, "heartbeat": {}, "driver": GOES_ON}


def test_stages_are_listed_with_their_state_and_finished_parts(store: LocalStore) -> None:
    commit(store, "rounds/0/train", 1)
    commit(store, "rounds/1/label", 3)
    store.put("rounds/1/select/plan.json", seal({"stage": "rounds/1/select", "inputs": {}}))
    for part in range(2):
        Output(store, "rounds/1/select", free).publish(part, {"x": b""}, {})
    assert read_status(store.url, ORDER)["stages"] == [
        {"stage": "rounds/0/train", "state": "committed", "parts": 1},
        {"stage": "rounds/1/label", "state": "committed", "parts": 3},
        {"stage": "rounds/1/select", "state": "under way", "parts": 2},
    ]


def test_a_training_that_is_scored_has_its_curve_under_way_and_committed(store: LocalStore) -> None:
    curve = [[10, 2.5, 0.25], [20, 1.5, 0.5]]

    def work(stage: Output) -> tuple[dict[str, Any], int]:
        store.put(f"{stage.prefix}/{TRAINING}", canonical({"step": 15, "loss": 2.0, "curve": curve[:1]}))
        (under_way,) = read_status(store.url, ORDER)["stages"]
        assert under_way == {"stage": "rounds/0/train", "state": "under way", "parts": 0, "curve": curve[:1]}
        stage.publish(0, {"x": b""}, {})
        return {"curve": curve}, 1

    ensure(store, "rounds/0/train", {}, work, free)
    assert read_status(store.url, ORDER)["stages"][0]["curve"] == curve


def test_a_curve_in_words_is_its_last_score_and_its_best() -> None:
    curve = [[10, 2.5, 0.25], [20, 1.5, 0.5], [30, 1.0, 0.5]]
    assert scored(curve[:2]) == "top-1 50.0% at step 20"
    assert scored(curve) == "top-1 50.0% at step 30, at best 50.0% at step 20"


@pytest.mark.parametrize(
    ("progress", "wanted"),
    [
        ({}, "driver at work (epoch 3), between stages"),
        (
            {**PROGRESS, "rate": 0.0, "seconds_left": None},
            "driver at work (epoch 3): rounds/1/label, 40 of 100 images",
        ),
        (
            {**PROGRESS, "rate": 12.345, "seconds_left": 4.9},
            "driver at work (epoch 3): rounds/1/label, 40 of 100 images, 12.3 a second, 5 s left",
        ),
        (
            {**PROGRESS, "rate": 0.0, "seconds_left": None, "note": "top-1 50.0% at step 30"},
            "driver at work (epoch 3): rounds/1/label, 40 of 100 images, top-1 50.0% at step 30",
        ),
        (
            {**PROGRESS, "rate": 2.0, "seconds_left": 4.9, "img_s": 1234.5, "loss": 0.123456, "waiting": "4 CPUs"},
            "driver at work (epoch 3): rounds/1/label, 40 of 100 images, 1,234 img/s, 5 s left, loss 0.1235, "
            "waiting: 4 CPUs",
        ),
    ],
)
def test_a_driver_at_work_is_told_with_stage_rate_and_time_left(
    store: LocalStore, progress: dict[str, Any], wanted: str
) -> None:
    beat(store, **progress)
    found = read_status(store.url, ORDER)
    assert found["driver"] == wanted
    assert found["heartbeat"]["epoch"] == 3
    assert json.loads(json.dumps(found)) == found


def test_a_run_whose_driver_left_is_told_from_one_that_works(store: LocalStore) -> None:
    store.put(HEARTBEAT, canonical({"epoch": 3, "released": True}))
    assert read_status(store.url, ORDER)["driver"] == GOES_ON


def test_a_silent_driver_is_told_with_the_seconds_of_silence(store: LocalStore) -> None:
    beat(store, age=STALE_SECONDS + 100, **PROGRESS, rate=1.0, seconds_left=60.0)
    driver = read_status(store.url, ORDER)["driver"]
    assert "epoch 3" in driver
    assert "silent for 2 min;" in driver
    assert "takes over" in driver


@pytest.mark.parametrize("age", [0.0, STALE_SECONDS + 100])
def test_a_finished_run_is_finished_whatever_the_heartbeat_says(store: LocalStore, age: float) -> None:
    commit(store, "report", 1)
    beat(store, age)
    found = read_status(store.url, ORDER)
    assert found["driver"] == "finished"
    assert found["finished"] is True


GARBAGE = [
    *(b"", b"\x00\xff", b'{"epoch":', b"[]", b"null", b"3", b'"x"', b'{"epoch":3}', b"[" * 100_000, b'{"curve":3}'),
    *(b'{"curve":[[1]]}', b'{"curve":[["a","b","c"]]}', b'{"seconds":"x"}', b'{"seconds":[]}', b'{"step":"x"}'),
    *(b'{"epoch":"3","time":1}', b'{"epoch":3,"time":"noon"}', b'{"epoch":3,"time":1e999}', b'{"epoch":3,"time":true}'),
    b'{"epoch":3,"time":1%s}' % (b"0" * 400),
    *(b'{"epoch":3,"time":1,"stage":"s"}', b'{"epoch":3,"time":9999999999,"stage":4,"done":1,"total":2,"unit":"x"}'),
    *(b'{"epoch":3,"time":9999999999,"stage":"s","done":{},"total":2,"unit":"x","seconds_left":1,"rate":2}',),
    *(b'{"epoch":3,"time":9999999999,"stage":"s","done":1,"total":2,"unit":"x","loss":"1"}', b'{"time":[]}'),
    *(b'{"epoch":3,"time":9999999999,"stage":"s","done":1,"total":2,"unit":"x","img_s":[],"seconds_left":1,"rate":1}',),
    *(b'{"epoch":3,"time":9999999999,"stage":"s","done":1,"total":2,"unit":"x","waiting":7}',),
    *(b'{"epoch":3,"time":9999999999,"stage":"s","done":1,"total":2,"unit":"x","seconds_left":"1"}', b'{"released":1}'),
    *(b'{"released":true,"epoch":[]}', b'{"step":1,"loss":2,"curve":[[1,2,NaN]]}', b"{" + b"1" * 5000 + b"}"),
    b"1" * 5000,
]


@pytest.mark.parametrize("garbage", [*GARBAGE, None], ids=range(len(GARBAGE) + 1))
@pytest.mark.parametrize("key", [HEARTBEAT, f"rounds/0/train/{TRAINING}", "rounds/0/train/timing.json"])
def test_a_harmed_hint_costs_nothing_but_what_it_tells(store: LocalStore, key: str, garbage: bytes | None) -> None:
    store.put("rounds/0/train/plan.json", seal({"stage": "rounds/0/train", "inputs": {}}))
    before = read_status(store.url, ORDER)
    if garbage is None:
        store.path(key).mkdir(parents=True)
    else:
        store.put(key, garbage)
    assert read_status(store.url, ORDER) == before
    hints.write(store, key, {"seconds": 1})  # a folder in its place, or a full disk, is no harm either
    if key == HEARTBEAT:
        lease = Lease(store)
        assert lease.held().epoch == 1
        lease.release()


@pytest.mark.parametrize("garbage", [b"", b"\x00\xff", b'{"epoch":', b"[]", b"null", b'{"epoch":3}'])
def test_a_harmed_heartbeat_hides_nothing_else(store: LocalStore, garbage: bytes) -> None:
    commit(store, "rounds/0/train", 1)
    store.put(HEARTBEAT, garbage)
    found = read_status(store.url, ORDER)
    assert found["stages"] == [{"stage": "rounds/0/train", "state": "committed", "parts": 1}]
    assert found["driver"]


def test_a_harmed_commit_is_an_integrity_error_that_names_it(store: LocalStore) -> None:
    commit(store, "rounds/0/train", 1)
    key = "rounds/0/train/commit.json"
    store.put(key, (store.get(key) or b"").replace(b"rounds", b"sounds", 1))
    with pytest.raises(IntegrityError, match=key):
        read_status(store.url, ORDER)


@pytest.mark.parametrize("call", [existing, lambda url: read_status(url, ORDER)])
@pytest.mark.parametrize("made", [True, False])
def test_a_place_without_a_run_is_refused_and_named(tmp_path: Path, call: Any, made: bool) -> None:
    place = tmp_path / "nothing"
    if made:
        place.mkdir()
    with pytest.raises(InputError, match="no run has begun here") as caught:
        call(str(place))
    assert str(place) in str(caught.value)
    assert caught.value.exit_code == 2
    assert place.exists() == made, "looking makes nothing"


def test_reading_the_status_writes_nothing(store: LocalStore) -> None:
    commit(store, "rounds/0/train", 1)
    beat(store)
    before = sorted((str(path), path.stat().st_mtime_ns) for path in store.root.rglob("*"))
    read_status(store.url, ORDER)
    assert sorted((str(path), path.stat().st_mtime_ns) for path in store.root.rglob("*")) == before


def test_stages_are_listed_as_a_run_does_them() -> None:
    def in_order(prefix: str) -> tuple[int, int, int, int, str]:
        return run_order(prefix, ORDER)

    turn = ("label", "label/counts", "select", "select-0123456789ab", "train", "finetune", "evaluate")
    first = ["digests", *(f"rounds/0/{stage}" for stage in ("train", "finetune", "evaluate"))]
    rounds = [f"rounds/{number}/{stage}" for number in range(1, 12) for stage in turn]
    control = [f"control/{stage}" for stage in ("train", "finetune", "evaluate")]
    grown = [f"pool-{pool}/{stage}" for pool in (2, 10) for stage in (*rounds, "report")]
    wanted = [*first, *rounds, *control, "report", *grown]
    assert sorted(sorted(wanted), key=in_order) == wanted
    ingest = [f"{stage}-{number:04d}" for number in (1, 2, 10) for stage in ("hashes", "duplicates", "ingest")]
    assert sorted(sorted(ingest), key=in_order) == ingest
    strange = ["rounds/x/label", "a\nb", "", "pool-/report", "hashes-", "label-\u0663"]
    assert len(sorted(strange, key=in_order)) == len(strange)


GARBAGE = [b"", b"\xff\x00", b"[]", b"1", b"null", b'"x"', b"{", b"[" * 100_000]


@pytest.mark.parametrize("value", [*GARBAGE, b'{"curve": 1}', b'{"curve": [1]}', b'{"curve": [["a", 1, 2]]}'])
def test_a_damaged_progress_costs_its_own_line_only(store: LocalStore, value: bytes) -> None:
    store.put("rounds/0/train/plan.json", seal({"stage": "rounds/0/train", "inputs": {}}))
    store.put(f"rounds/0/train/{TRAINING}", value)
    assert read_status(store.url, ORDER)["stages"] == [{"stage": "rounds/0/train", "state": "under way", "parts": 0}]


@pytest.mark.parametrize(
    "value",
    [
        *GARBAGE,
        b'{"time": "now"}',
        b'{"time": 1e400}',
        b'{"time": 9e15}',
        b'{"time": 9e15, "epoch": 1, "stage": "x"}',
        b'{"time": 9e15, "epoch": 1, "stage": "x", "seconds_left": "x", "rate": null}',
        b'{"time": 9e15, "epoch": 1, "stage": 1, "seconds_left": 1, "rate": 1, "done": [], "total": 1, "unit": 1}',
    ],
)
def test_a_damaged_heartbeat_costs_its_own_line_only(store: LocalStore, value: bytes) -> None:
    commit(store, "rounds/0/train", 1)
    store.put(HEARTBEAT, value)
    assert len(read_status(store.url, ORDER)["stages"]) == 1
