"""Checkpoints of a training: atomic, verified, and never without one to fall back to."""

import threading
from pathlib import Path

import pytest
import torch
from support.dying import FaultyStore, Killed
from support.held import HOLDER, hold

from ray_ns.errors import IntegrityError, ResumableError
from ray_ns.store.checkpoint import Checkpoint, Writer, at, clear, latest, place, save
from ray_ns.store.lease import Holder
from ray_ns.store.objects import LocalStore

PREFIX = "rounds/0/train"
PLACE = place(PREFIX, "0" * 64)
OPERATIONS = 6  # of one save beside two others: put, put, list, list, delete, delete; a test below holds it to that


def name(step: int, holder: Holder = HOLDER) -> str:
    return f"{step:09d}-{holder.epoch:06d}-{holder.lease}"


def state(step: int, shift: float = 0.0) -> Checkpoint:
    generator = torch.Generator().manual_seed(step)
    tensors = {
        "model.weight": torch.randn(3, 4, generator=generator) + shift,
        "model.half": torch.randn(5, generator=generator).to(torch.bfloat16),
        "model.count": torch.tensor(step),
        "rng": torch.randint(0, 256, (16,), generator=generator, dtype=torch.uint8),
    }
    return Checkpoint(step, tensors, {"step": step, "loss": 0.1 + step, "lost": None})


def no_warning(text: str) -> None:
    raise AssertionError(text)


def same(found: Checkpoint | None, wanted: Checkpoint) -> bool:
    return (
        found is not None
        and found.step == wanted.step
        and found.facts == wanted.facts
        and set(found.tensors) == set(wanted.tensors)
        and all(
            found.tensors[name].dtype == tensor.dtype and torch.equal(found.tensors[name], tensor)
            for name, tensor in wanted.tensors.items()
        )
    )


def steps(store: LocalStore) -> list[str]:
    return [key.rsplit("/", 1)[1][:9] for key in store.list(f"{PLACE}/")]


def file_of(store: LocalStore, step: int, kind: str) -> Path:
    keys = [key for key in store.list(f"{PLACE}/{step:09d}") if key.endswith(kind)]
    assert len(keys) == 1
    return store.path(keys[0])


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


def test_the_newest_is_given_back_bit_for_bit(store: LocalStore) -> None:
    for step in (100, 200, 1000):  # 1000 is newer than 200, and before it by name without the zeros
        save(store, PLACE, HOLDER, state(step))
    assert same(latest(store, PLACE, no_warning), state(1000))


def test_a_training_without_one_has_none(store: LocalStore) -> None:
    assert latest(store, PLACE, no_warning) is None


def test_trainings_do_not_see_each_others(store: LocalStore) -> None:
    one, other = (place(prefix, "0" * 64) for prefix in ("rounds/1/train", "rounds/10/train"))
    save(store, one, HOLDER, state(100))
    save(store, other, HOLDER, state(200))
    assert same(latest(store, one, no_warning), state(100))


@pytest.mark.parametrize(
    ("kind", "harm"),
    [
        *((".safetensors", harm) for harm in ("flipped", "missing", "empty", "cut short")),
        *((".json", harm) for harm in ("flipped", "empty", "cut short")),  # without its pointer it does not exist
    ],
)
def test_harm_to_the_newest_falls_back_to_the_one_before_and_is_named(store: LocalStore, kind: str, harm: str) -> None:
    save(store, PLACE, HOLDER, state(100))
    save(store, PLACE, HOLDER, state(200))
    path = file_of(store, 200, kind)
    data = bytearray(path.read_bytes())
    if harm == "flipped":
        data[-3] ^= 4
    path.write_bytes(bytes({"flipped": data, "empty": b"", "cut short": data[:-1], "missing": data}[harm]))
    if harm == "missing":
        path.unlink()
    warnings: list[str] = []
    assert same(latest(store, PLACE, warnings.append), state(100))
    assert len(warnings) == 1
    assert f"{PLACE}/{name(200)}.json" in warnings[0]
    assert path.relative_to(store.root).as_posix() in warnings[0]
    assert f"{PLACE}/{name(100)}.json is" in warnings[0]


def test_when_all_are_harmed_there_is_none_and_each_is_named(store: LocalStore) -> None:
    for step in (100, 200):
        save(store, PLACE, HOLDER, state(step))
        file_of(store, step, ".safetensors").write_bytes(b"rot")
    warnings: list[str] = []
    assert latest(store, PLACE, warnings.append) is None
    assert ["000000200" in warnings[0], "000000100" in warnings[1]] == [True, True]


def test_killed_between_tensors_and_pointer_the_one_before_is_used(store: LocalStore) -> None:
    save(store, PLACE, HOLDER, state(100))
    with pytest.raises(Killed):
        save(FaultyStore(store.root, die_at=1), PLACE, HOLDER, state(200))
    assert "000000200" in steps(store)
    assert same(latest(store, PLACE, no_warning), state(100))


def test_the_operations_below_are_all_there_are(store: LocalStore) -> None:
    for step in (100, 200):
        save(store, PLACE, HOLDER, state(step))
    watched = FaultyStore(store.root)
    save(watched, PLACE, HOLDER, state(300))
    assert watched.operations == OPERATIONS


@pytest.mark.parametrize("operation", range(OPERATIONS))
def test_killed_anywhere_in_a_save_a_whole_checkpoint_remains_and_the_next_save_tidies_up(
    store: LocalStore, operation: int
) -> None:
    for step in (100, 200):
        save(store, PLACE, HOLDER, state(step))
    with pytest.raises(Killed):
        save(FaultyStore(store.root, die_at=operation), PLACE, HOLDER, state(300))
    wanted = state(200) if operation < 2 else state(300)
    assert same(latest(store, PLACE, no_warning), wanted)
    save(store, PLACE, HOLDER, state(300))
    save(store, PLACE, HOLDER, state(400))
    assert steps(store) == ["000000300", "000000300", "000000400", "000000400"]


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_only_the_newest_are_kept(store: LocalStore, keep: int) -> None:
    for step in (100, 200, 300, 400):
        save(store, PLACE, HOLDER, state(step), keep)
    wanted = [f"{step:09d}" for step in (200, 300, 400)[-keep:]]
    assert sorted(set(steps(store))) == wanted
    assert len(steps(store)) == 2 * keep


def test_two_are_kept_when_nothing_is_said(store: LocalStore) -> None:
    for step in (100, 200, 300):
        save(store, PLACE, HOLDER, state(step))
    assert sorted(set(steps(store))) == ["000000200", "000000300"]


def test_a_step_saved_again_after_a_fall_back_replaces_the_harmed_one(store: LocalStore) -> None:
    for step in (100, 200):
        save(store, PLACE, HOLDER, state(step))
    file_of(store, 200, ".safetensors").write_bytes(b"rot")
    save(store, PLACE, HOLDER, state(200))
    assert same(latest(store, PLACE, no_warning), state(200))
    save(store, PLACE, HOLDER, state(200, shift=1.0))
    assert same(latest(store, PLACE, no_warning), state(200, shift=1.0))


def test_clear_removes_all_of_this_training_and_nothing_else(store: LocalStore) -> None:
    for step in (100, 200):
        save(store, PLACE, HOLDER, state(step))
    other = place("control/train", "0" * 64)
    save(store, other, HOLDER, state(100))
    store.put(f"{PREFIX}/commit.json", b"{}")
    clear(store, PREFIX)
    assert latest(store, PLACE, no_warning) is None
    assert list(store.list(PREFIX)) == [f"{PREFIX}/commit.json"]
    assert same(latest(store, other, no_warning), state(100))


@pytest.mark.parametrize("operation", range(5))
def test_a_clear_that_is_killed_can_be_done_again(store: LocalStore, operation: int) -> None:
    for step in (100, 200):
        save(store, PLACE, HOLDER, state(step))
    with pytest.raises(Killed):
        clear(FaultyStore(store.root, die_at=operation), PREFIX)
    clear(store, PREFIX)
    assert list(store.list("")) == []


def test_the_checkpoint_of_one_step_is_given_back_or_refused(store: LocalStore) -> None:
    for step in (100, 200):
        save(store, PLACE, HOLDER, state(step))
    assert same(at(store, f"{PLACE}/{name(100)}.json"), state(100))
    with pytest.raises(IntegrityError, match=r"000000150-.*\.json .* is gone"):
        at(store, f"{PLACE}/{name(150)}.json")


def test_a_newer_one_that_was_refused_does_not_push_out_the_good_ones(store: LocalStore) -> None:
    for step in (100, 200):
        save(store, PLACE, HOLDER, state(step))
    file_of(store, 200, ".safetensors").write_bytes(b"rot")
    save(store, PLACE, HOLDER, state(150))
    file_of(store, 150, ".safetensors").write_bytes(b"rot")
    assert same(latest(store, PLACE, lambda text: None), state(100))


class SlowStore(LocalStore):
    """A store whose writes wait until they may go on."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.go_on = threading.Event()
        self.writing = 0
        self.most = 0

    def put(self, key: str, data: bytes) -> None:
        self.writing += 1
        self.most = max(self.most, self.writing)
        assert self.go_on.wait(30)
        super().put(key, data)
        self.writing -= 1


def test_a_writer_writes_while_its_caller_goes_on(store: LocalStore) -> None:
    slow = SlowStore(store.root)
    hold(store)
    writer = Writer(slow, PLACE, HOLDER, 2)
    writer.save(lambda: state(100))
    writer.check()  # it is under way, and nothing went wrong
    assert latest(store, PLACE, no_warning) is None
    slow.go_on.set()
    writer.wait()
    assert same(latest(store, PLACE, no_warning), state(100))


def test_a_writer_writes_one_at_a_time_and_waits_for_it(store: LocalStore) -> None:
    slow = SlowStore(store.root)
    hold(store)
    writer = Writer(slow, PLACE, HOLDER, 3)
    writer.save(lambda: state(100))
    threading.Timer(0.2, slow.go_on.set).start()
    for step in (200, 300):
        writer.save(lambda step=step: state(step))
    writer.wait()
    assert slow.most == 1
    assert writer.waited > 0.1
    assert sorted(set(steps(store))) == ["000000100", "000000200", "000000300"]


@pytest.mark.parametrize("call", ["check", "wait", "save"])
def test_what_goes_wrong_in_a_writer_is_raised_by_the_next_call(store: LocalStore, call: str) -> None:
    hold(store)
    hold(store, Holder(2, "another"))
    writer = Writer(store, PLACE, HOLDER, 2)
    writer.save(lambda: state(100))
    writer._thread.shutdown()  # it has ended
    with pytest.raises(ResumableError, match="another driver has taken over"):
        {"check": writer.check, "wait": writer.wait, "save": lambda: writer.save(lambda: state(200))}[call]()
    assert latest(store, PLACE, no_warning) is None


ANOTHER = Holder(1, "1" * 32)  # of a run that was deleted and begun anew
LATER = Holder(2, "2" * 32)


@pytest.mark.parametrize("now", [ANOTHER, LATER])
@pytest.mark.parametrize("operation", range(OPERATIONS))
def test_a_driver_that_stood_still_between_its_fence_and_any_write_harms_no_checkpoint_of_the_next(
    store: LocalStore, now: Holder, operation: int
) -> None:
    for step in (100, 200):
        save(store, PLACE, HOLDER, state(step))

    class Stopped(FaultyStore):
        def _step(self) -> None:
            if self.operations == self.die_at:  # the other one works while this one stands still
                for step in (150, 300):
                    save(store, PLACE, now, state(step, shift=1.0), keep=9)
            self.operations += 1

    save(Stopped(store.root, operation), PLACE, HOLDER, state(300))
    own = {key: store.get(key) for key in store.list(f"{PLACE}/") if now.lease in key}
    assert len(own) == 4, "both are there, whole"
    found = at(store, f"{PLACE}/{name(300, now)}.json")
    assert same(found, state(300, shift=1.0))
    if now is LATER:
        assert same(latest(store, PLACE, no_warning), state(300, shift=1.0))


def test_a_training_of_another_plan_sees_no_checkpoint_of_a_driver_of_the_deleted_run(store: LocalStore) -> None:
    save(store, PLACE, HOLDER, state(300))
    own = place(PREFIX, "f" * 64)
    assert latest(store, own, no_warning) is None
    save(store, own, ANOTHER, state(100))
    save(store, PLACE, HOLDER, state(400))
    assert same(latest(store, own, no_warning), state(100))
    clear(store, PREFIX)
    assert list(store.list("")) == []


def test_checkpoints_of_earlier_drivers_go_as_ones_own_do(store: LocalStore) -> None:
    save(store, PLACE, HOLDER, state(100))
    save(store, PLACE, HOLDER, state(200))
    save(store, PLACE, LATER, state(300))
    assert sorted(set(steps(store))) == ["000000200", "000000300"]


@pytest.mark.parametrize(
    "copy", ["{} (1).json", "{} copy.json", "{}.sync-conflict-20260101.json", "{}.json~", "x {}.json"]
)
def test_names_of_sync_clients_are_no_checkpoints(store: LocalStore, copy: str) -> None:
    save(store, PLACE, HOLDER, state(100))
    pointer = file_of(store, 100, ".json")
    pointer.with_name(copy.format(name(200))).write_bytes(b"garbage")
    pointer.with_name(copy.format(pointer.stem)).write_bytes(pointer.read_bytes())
    assert same(latest(store, PLACE, no_warning), state(100))
    save(store, PLACE, HOLDER, state(200))
