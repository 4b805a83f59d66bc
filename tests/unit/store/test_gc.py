"""What nothing names goes; what anything names, whatever is not the run's, and what is young stays."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.aged import age
from support.dying import Die, FaultyStore, Killed, dying_writes

from ray_ns.errors import InputError, IntegrityError, ResumableError
from ray_ns.seals import digest, seal, sha256
from ray_ns.store import checkpoint, gc, hints, layout
from ray_ns.store.commit import Commit, Output, Part, ensure
from ray_ns.store.fork import FORK, ForkedStore
from ray_ns.store.lease import Lease
from ray_ns.store.objects import LocalStore, ObjectStore
from ray_ns.store.verify import verify

NAMES = {"labels.parquet", "selection.parquet", "model.safetensors"}
KINDS = ("data", "undecided", "checkpoints")
STEPS, PARTS = 3, 2


class Run:
    """All that a run does with its store, without images: a training, labels, a selection, in two rounds.

    ``worked``: what it did not find, in order.
    """

    def __init__(self, store: ObjectStore) -> None:
        self.store, self.lease = store, Lease(store)
        self.worked: list[str] = []

    def end(self) -> None:
        try:
            if layout.record(self.store) is None:
                layout.begin(self.store, {"run": {}}, {"pool": []}, self.lease.check, layout.Classes(10))
            teacher = self.train("rounds/0/train", {"selection": None})
            labels = self.ensure("rounds/1/label", {"teacher": teacher.digest}, self.label)
            chosen = self.ensure("rounds/1/select", {"labels": labels.digest}, self.select)
            for key in self.store.list("rounds/1/select/undecided/"):
                self.lease.check()
                self.store.delete(key)
            self.train("rounds/1/train", {"selection": chosen.digest})
        finally:
            self.lease.release()

    def ensure(self, stage: str, inputs: dict[str, Any], work: Callable[[Output], Any]) -> Commit:
        made = ensure(self.store, stage, inputs, work, self.lease.check)
        hints.write(self.store, f"{stage}/timing.json", {"seconds": 1})
        return made

    def train(self, stage: str, inputs: dict[str, Any]) -> Commit:
        place = checkpoint.place(stage, digest(inputs))

        def work(output: Output) -> Any:
            if 0 not in output.done():
                found = checkpoint.latest(self.store, place, self.worked.append)
                for step in range(found.step + 1 if found else 1, STEPS + 1):
                    self.worked.append(f"{stage} {step}")
                    here = checkpoint.Checkpoint(step, {}, {"of": stage})
                    checkpoint.save(self.store, place, self.lease.held(), here)
                output.publish(0, {"model.safetensors": stage.encode()}, {})
            checkpoint.clear(self.store, stage)
            return {}, 1

        return self.ensure(stage, inputs, work)

    def label(self, output: Output) -> Any:
        for part in set(range(PARTS)) - set(output.done()):
            self.worked.append(f"labels {part}")
            output.publish(part, {"labels.parquet": bytes([part]) * 9}, {})
        return {}, PARTS

    def select(self, output: Output) -> Any:
        self.lease.check()
        self.store.put(f"{output.prefix}/undecided/000000-{sha256(b'u')[:16]}.parquet", b"u")
        return {}, [output.put(part, {"selection.parquet": bytes([part]) * 5}, {}) for part in range(2)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("run")
    Run(LocalStore(root)).end()
    age(root)
    return root


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes die here, no machine does."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def ended(whole: Path, tmp_path: Path) -> LocalStore:
    shutil.copytree(whole, tmp_path / "run")
    return LocalStore(tmp_path / "run")


@pytest.fixture
def dying(monkeypatch: pytest.MonkeyPatch) -> Iterator[Die]:
    yield from dying_writes(monkeypatch)


def collect(store: ObjectStore) -> list[str]:
    """Remove what is left over, as ``ray-ns gc --delete`` does; the keys."""
    lease = Lease(store)
    try:
        lease.check()
        return [it.key for it in gc.remove(store, gc.survey(store, NAMES).old, lease.check)]
    finally:
        lease.release()


def old(store: ObjectStore) -> list[str]:
    return [it.key for it in gc.survey(store, NAMES).old]


def faults(store: ObjectStore) -> list[str]:
    return [fault for _, fault in verify(store) if fault is not None]


def kept(root: Path) -> dict[str, bytes]:
    """All of a run but who drove it."""
    paths = [it for it in sorted(root.rglob("*")) if it.is_file()]
    return {name: it.read_bytes() for it in paths if not (name := it.relative_to(root).as_posix()).startswith("driver")}


def test_a_run_that_was_never_disturbed_has_no_leftovers(ended: LocalStore) -> None:
    found = gc.survey(ended, NAMES)
    assert found == gc.Found((), (), ())


@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.chaos), 6])
def test_killed_before_any_write_then_swept_it_is_well_and_ends_with_the_same_bytes_and_no_more_work(
    whole: Path, tmp_path: Path, dying: Die, every: int
) -> None:
    written = dying(None)
    Run(LocalStore(tmp_path / "counted")).end()
    writes, removed = len(written), set()
    plain, swept = LocalStore(tmp_path / "plain"), LocalStore(tmp_path / "swept")
    for at in range(4, writes, every):  # the first ones begin the run
        dying(at)
        with pytest.raises(Killed):
            Run(plain).end()
        dying(None)
        shutil.copytree(plain.root, swept.root)
        age(swept.root)
        gone = collect(swept)
        removed |= {it for it in KINDS for key in gone if f"/{it}/" in key}
        assert faults(swept) == [], f"killed before write {at}, then without {gone}"
        went_on = [Run(store) for store in (plain, swept)]
        for run in went_on:
            run.end()
            shutil.move(run.store.url, tmp_path / "ended")
            assert kept(tmp_path / "ended") == kept(whole), f"killed before write {at}, then without {gone}"
            shutil.rmtree(tmp_path / "ended")
        assert went_on[0].worked == went_on[1].worked, f"killed before write {at}, then without {gone}"
    assert removed == set(KINDS) or every > 1


def littered(store: LocalStore) -> set[str]:
    """Put there one leftover of each kind; their keys."""
    data = f"rounds/1/label/data/000001-{'0' * 16}/labels.parquet"
    of = checkpoint.place("rounds/0/train", digest({"selection": None}))
    name = f"000000003-000001-{'a' * 32}"
    keys = {
        *(data, f"rounds/1/select/undecided/000000-{'0' * 16}.parquet"),
        *(f"{of}/{name}.json", f"{of}/{name}-{'0' * 16}.safetensors"),
        *(".ray/rounds-0-train-1234abcd/checkpoint_manager_snapshot.json", ".ray/x/.validate_storage_marker"),
        *("driver/seen-0123456789ab", "driver/seen-0123456789ab-2"),
    }
    for key in keys:
        store.put(key, b"left")
    (store.root / ".tmp" / ("0" * 32)).write_bytes(b"half")
    return {*keys, f".tmp/{'0' * 32}"}


def test_each_kind_of_leftover_goes_once_it_is_a_day_old_and_leaves_no_folder(ended: LocalStore, whole: Path) -> None:
    left = littered(ended)
    found = gc.survey(ended, NAMES)
    assert (found.old, found.unknown) == ((), ())
    assert {it.key for it in found.young} == left
    age(ended.root, gc.DAY + 60)
    found = gc.survey(ended, NAMES)
    assert {it.key for it in found.old} == left
    assert all(it.size == 4 and it.why and it.key.startswith(it.folder) for it in found.old)
    assert set(collect(ended)) == left - {f".tmp/{'0' * 32}"}, "that one whoever takes the lease removes"
    assert old(ended) == []
    assert kept(ended.root) == kept(whole)
    now, before = ({it.relative_to(root) for it in root.rglob("*") if it.is_dir()} for root in (ended.root, whole))
    assert now <= before


USERS = (
    *("notes.txt", "best/model.onnx", "rounds/1/label/labels.parquet", "rounds/1/label/data/mine.parquet"),
    *(f"rounds/1/label/data/000001-{'0' * 16}/notes.txt", ".ray-notes", "checkpoints/mine.safetensors"),
    *(f"rounds/9/label/data/000001-{'0' * 16}/labels.parquet", f"undecided/000000-{'0' * 16}.parquet"),
    *("rounds/1/label/commit (copy).json", "rounds/1/select/undecided/mine.parquet", "results/labels.parquet"),
)


def test_whatever_is_not_the_runs_by_name_stays_and_is_told(ended: LocalStore) -> None:
    for key in USERS:
        (ended.root / key).parent.mkdir(parents=True, exist_ok=True)
        (ended.root / key).write_bytes(b"mine")
    shutil.copytree(ended.root / "rounds/1/label", ended.root / "oldlabels")
    shutil.rmtree(ended.root / "rounds/9")
    age(ended.root)
    found = gc.survey(ended, NAMES)
    assert found.old == ()
    copied = {it.relative_to(ended.root).as_posix() for it in (ended.root / "oldlabels").rglob("*") if it.is_file()}
    told = {*USERS, *copied} - {"best/model.onnx"} - {it for it in USERS if it.startswith("rounds/9")}
    assert set(found.unknown) == told
    assert collect(ended) == []
    assert all((ended.root / it).exists() for it in told)


HINTS = ("places.json", "README.md", "rounds/1/label/README.md", "rounds/0/train/progress.json", "events-1.jsonl")


def test_hints_that_a_user_reads_stay(ended: LocalStore) -> None:
    for key in (*HINTS, "rounds/0/train/cost.json", "best/model.safetensors", "best/README.md"):
        ended.put(key, b"{}")
    age(ended.root)
    assert gc.survey(ended, NAMES) == gc.Found((), (), ())


@pytest.mark.parametrize("kind", ["commit.json", "plan.json", "done/000001.json"])
def test_nothing_is_judged_where_a_record_is_damaged_or_lost(ended: LocalStore, kind: str) -> None:
    littered(ended)
    age(ended.root)
    key = f"rounds/1/label/{kind}"
    data = ended.get(key) or b""
    ended.put(key, data[:-9] + b"damaged!}")
    with pytest.raises(IntegrityError, match=key):
        gc.survey(ended, NAMES)
    if not kind.startswith("done"):
        ended.delete(key)
        with pytest.raises(IntegrityError, match=f"{key} .*missing.*nothing is removed"):
            gc.survey(ended, NAMES)


def test_a_place_without_a_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray/x").touch()
    age(tmp_path)
    with pytest.raises(InputError, match="no run has begun here"):
        gc.survey(LocalStore(tmp_path), NAMES)


def test_checkpoints_of_a_training_under_way_stay_those_of_another_plan_go(tmp_path: Path, dying: Die) -> None:
    store = LocalStore(tmp_path)
    written = dying(None)
    Run(store).end()
    (before,) = [at for at, key in enumerate(written) if key == "rounds/0/train/done/000000.json"]
    shutil.rmtree(tmp_path)
    dying(before)
    with pytest.raises(Killed):
        Run(store).end()
    dying(None)
    pointers = [it for it in store.list("rounds/0/train/checkpoints/") if it.endswith(".json")]
    assert len(pointers) == 2
    other = [store.path(it) for it in pointers]
    for path in other:
        folder = path.parents[1] / ("0" * 16)
        folder.mkdir(exist_ok=True)
        shutil.copy(path, folder)
    age(tmp_path)
    assert {it.rpartition("/")[2] for it in collect(store) if "checkpoints" in it} == {it.name for it in other}
    assert [it for it in store.list("rounds/0/train/checkpoints/") if it.endswith(".json")] == pointers
    run = Run(store)
    run.end()
    assert not any("rounds/0/train" in it for it in run.worked), "it went on from the last step"


def test_data_that_a_finished_part_of_another_stage_has_taken_over_stay(store: LocalStore) -> None:
    made: list[Part] = []

    def begin(output: Output) -> Any:
        made.append(output.publish(0, {"labels.parquet": b"x"}, {}))
        raise Killed

    def take_over(output: Output) -> Any:
        output.adopt(0, made[0])
        raise Killed

    layout.begin(store, {"run": {}}, {"pool": []}, lambda: None, layout.Classes(10))
    layout.grow(store, {"pool": [1]}, 2, lambda: None)
    for place, work in (("rounds/1/label", begin), ("pool-2/rounds/1/label", take_over)):
        with pytest.raises(Killed):
            ensure(store, place, {}, work, lambda: None)
    store.delete("rounds/1/label/done/000000.json")
    age(store.root)
    assert old(store) == []
    store.delete("pool-2/rounds/1/label/done/000000.json")
    assert old(store) == [made[0].objects["labels.parquet"].key]


def test_while_another_driver_lives_nothing_is_removed(ended: LocalStore) -> None:
    littered(ended)
    age(ended.root)
    other = Lease(ended)
    other.check()
    try:
        with pytest.raises(ResumableError, match="another driver is at work"):
            collect(ended)
    finally:
        other.release()
    assert len(old(ended)) == 8, "but for the temporary file, which a driver removes that begins"


def test_a_sweep_that_has_lost_its_lease_removes_nothing_more(ended: LocalStore) -> None:
    littered(ended)
    age(ended.root)
    lease = Lease(ended)
    lease.check()
    found = gc.survey(ended, NAMES).old
    ended.put("driver/000009.json", seal({"epoch": 9, "lease": "x"}))
    ended.put(f"driver/{lease.held().epoch + 1:06d}.json", seal({"epoch": 3, "lease": "x"}))
    with pytest.raises(ResumableError):
        list(gc.remove(ended, found, lease.check))
    lease.release()
    assert old(ended) == [it.key for it in found]


def test_killed_before_any_of_its_deletions_the_run_is_well(ended: LocalStore, whole: Path) -> None:
    littered(ended)
    age(ended.root)
    for at in range(len(gc.survey(ended, NAMES).old)):
        try:
            for _ in gc.remove(FaultyStore(ended.root, at), gc.survey(ended, NAMES).old, lambda: None):
                pass
        except Killed:
            assert faults(ended) == []
    assert old(ended) == []
    assert kept(ended.root) == kept(whole)


def test_nothing_of_the_run_that_it_was_forked_from_is_touched(ended: LocalStore, tmp_path: Path) -> None:
    littered(ended)
    own = LocalStore(tmp_path / "fork")
    store = ForkedStore(own, ended)
    layout.begin(store, {"run": {}}, {"pool": []}, lambda: None, layout.Classes(10))
    own.put(".ray/x", b"left")
    for root in (own.root, ended.root):
        age(root)
    before = kept(ended.root)
    assert own.get(FORK) is not None
    assert collect(store) == [".ray/x"]
    assert kept(ended.root) == before
