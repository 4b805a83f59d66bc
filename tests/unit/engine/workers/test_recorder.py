import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load
from support import tiny_training
from support.held import HOLDER, hold
from support.measured import measured

from ray_ns.artifacts.network import Network
from ray_ns.config import Config
from ray_ns.engine.workers.recorder import Destination, Recorder, _Progress
from ray_ns.methods.objectives import NoisyStudent
from ray_ns.store import checkpoint
from ray_ns.store.commit import Commit, Output
from ray_ns.store.lease import Holder, LeaseLostError
from ray_ns.store.objects import LocalStore
from ray_ns.store.status import PROGRESS
from ray_ns.train.state import TrainState

PREFIX = "rounds/0/train"
PLACE = checkpoint.place(PREFIX, "0" * 64)
Made = Callable[..., tuple[Recorder, TrainState]]


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "run")


@pytest.fixture
def made(config: Config, store: LocalStore, tmp_path: Path) -> Made:
    """A recorder and the state it keeps: a checkpoint every 4 of 12 steps."""

    def recorder(
        found: checkpoint.Checkpoint | None = None,
        leaving: Callable[[int], bool] = lambda step: False,
        holder: Holder = HOLDER,
        **recipe_of: Any,
    ) -> tuple[Recorder, TrainState]:
        recipe = config.student.model_copy(update={"steps": 12, **recipe_of})
        cluster = config.cluster.model_copy(update={"checkpoint_steps": 4})
        state = TrainState.fresh(NoisyStudent(recipe), config.data, 1, torch.device("cpu"))
        state.step = found.step if found else 0
        steps = tiny_training.steps_in(tmp_path)
        to = Destination(store, PREFIX, PLACE, hold(store, holder))
        return Recorder(to, cluster, recipe, config.data, steps, found, leaving), state

    return recorder


def walk(recorder: Recorder, state: TrainState, steps: int) -> None:
    for _ in range(steps):
        state.step += 1
        recorder.after_step(state, 0.5 + state.step)
    recorder._writer.wait()


def newest(store: LocalStore) -> checkpoint.Checkpoint:
    found = checkpoint.latest(store, PLACE, pytest.fail)
    assert found is not None
    return found


def pointers(store: LocalStore) -> list[int]:
    return [int(key.removeprefix(f"{PLACE}/")[:9]) for key in store.list(f"{PLACE}/") if key.endswith(".json")]


def test_a_checkpoint_comes_every_so_many_steps_and_none_after_the_last(made: Made, store: LocalStore) -> None:
    recorder, state = made()
    walk(recorder, state, 12)
    assert pointers(store) == [4, 8]
    assert newest(store).facts["losses"] == [0.5 + step for step in range(1, 9)]


def test_steps_loss_and_checkpoints_are_measured(made: Made) -> None:
    recorder, state = made()
    with measured() as found:
        walk(recorder, state, 12)
    assert found.total("ns_train_steps") == 12
    assert [value for name, value, _ in found.values if name == "ns_loss"] == [0.5 + step for step in range(1, 13)]
    assert found.total("ns_checkpoints") == 2
    assert found.total("ns_checkpoint_stall_seconds") == pytest.approx(recorder.cost()["waited_seconds"])


def test_a_notice_is_worth_one_checkpoint_at_once(made: Made, store: LocalStore) -> None:
    recorder, state = made(leaving=lambda step: step >= 5)
    walk(recorder, state, 7)
    assert pointers(store) == [4, 5]


def test_losses_and_cost_go_on_from_the_checkpoint(made: Made, store: LocalStore) -> None:
    recorder, state = made()
    walk(recorder, state, 6)
    found = newest(store)
    again, state = made(found)
    assert again.cost() == {**found.facts["cost"], "bytes_read": 0, "bytes_used": 0}
    walk(again, state, 4)
    assert newest(store).facts["losses"] == [0.5 + step for step in range(1, 9)]
    assert again.cost()["useful_seconds"] > found.facts["cost"]["useful_seconds"]


def test_the_cost_is_this_drivers_alone(made: Made, store: LocalStore) -> None:
    recorder, state = made()
    walk(recorder, state, 6)
    other, _ = made(newest(store), holder=Holder(2, "1" * 32))
    assert other.cost() == {
        "driver": "1" * 32,
        "useful_seconds": 0.0,
        "waited_seconds": 0.0,
        "bytes_read": 0,
        "bytes_used": 0,
    }


def test_an_error_in_the_writing_thread_stops_the_next_step(
    made: Made, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    recorder, state = made()
    monkeypatch.setattr("ray_ns.store.checkpoint.save", full)
    for _ in range(4):
        state.step += 1
        recorder.after_step(state, 1.0)
    recorder._writer._thread.shutdown()
    with pytest.raises(OSError, match="No space left"):
        recorder.after_step(state, 1.0)


def test_what_is_published_holds_no_seconds(made: Made, store: LocalStore) -> None:
    recorder, state = made()
    walk(recorder, state, 12)
    recorder.publish(state, ("cat", "dog", "owl"))
    done = json.loads(store.get(f"{PREFIX}/done/000000.json") or b"")
    told = json.loads(store.get(done["objects"]["config.json"]["key"]) or b"")
    assert told["label_names"] == ["cat", "dog", "owl"]
    assert "useful_seconds" not in json.dumps(done), "seconds would make two equal trainings differ"
    assert json.loads(store.get(f"{PREFIX}/{PROGRESS}") or b"")["step"] == 12, "whoever watches sees its end"


def test_a_network_is_published_with_how_it_is_fed(made: Made, store: LocalStore, config: Config) -> None:
    """Nothing more than the size is said where that is as the run's data says: so are the commits of all runs."""
    usual, state = made()
    walk(usual, state, 12)
    usual.publish(state)
    facts = Output(store, PREFIX, lambda: None).done()[0].facts
    assert (facts["size"], "fed" in facts) == (config.data.size, False)
    store.delete(f"{PREFIX}/done/000000.json")
    recorder, state = made(train_size=20, test_size=24, interpolation="bicubic")
    walk(recorder, state, 12)
    recorder.publish(state)
    part = Output(store, PREFIX, lambda: None).done()[0]
    assert (part.facts["size"], part.facts["fed"]) == (24, {"interpolation": "bicubic"})
    told = json.loads(part.objects["config.json"].read(store))["pretrained_cfg"]
    assert (told["input_size"], told["interpolation"]) == ([1, 24, 24], "bicubic")
    network = Network(Commit(PREFIX, "", "", (part,), part.facts))
    assert network.fed(config.data) == config.data.read_as(size=24, interpolation="bicubic")


def test_the_curve_and_the_weights_of_the_best_score_are_published(made: Made, store: LocalStore) -> None:
    recorder, state = made(eval_steps=2, patience=3)
    weights = {}
    for top1 in (0.5, 0.75, 0.25):
        walk(recorder, state, 1)
        state.step += 1
        with torch.no_grad():
            next(state.result.parameters()).fill_(top1)
        state.score(top1, keep=True)
        weights[top1] = {name: it.clone() for name, it in state.result.state_dict().items()}
        recorder.after_step(state, 0.5 + state.step)
    recorder.publish(state)
    done = json.loads(store.get(f"{PREFIX}/done/000000.json") or b"")
    assert done["facts"]["curve"] == [[2, 2.0, 0.5], [4, 4.0, 0.75], [6, 6.0, 0.25]]
    assert done["facts"]["kept"] == {"step": 4, "top1": 0.75}
    found = load(store.get(done["objects"]["model.safetensors"]["key"]) or b"")
    assert all(torch.equal(it, found[name]) for name, it in weights[0.75].items())


def test_progress_tells_the_scores_so_far(made: Made, store: LocalStore, tmp_path: Path) -> None:
    recorder, state = made(eval_steps=1)
    state.step += 1
    state.score(0.5, keep=False)
    recorder.after_step(state, 1.5)
    recorder._progress.wait()
    told = json.loads(store.get(f"{PREFIX}/{PROGRESS}") or b"")
    images = tiny_training.steps_in(tmp_path).per_step
    assert images > 0
    assert told == {"step": 1, "loss": 1.5, "images": images, "curve": [[1, 1.5, 0.5]]}


def test_no_step_waits_for_a_store_that_is_slow_to_take_the_progress(
    made: Made, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()
    put = LocalStore.put

    def slow(self: LocalStore, key: str, data: bytes) -> None:
        assert not key.endswith(PROGRESS) or answers.wait(60)
        put(self, key, data)

    recorder, state = made()
    monkeypatch.setattr(LocalStore, "put", slow)
    walk(recorder, state, 3)
    assert store.get(f"{PREFIX}/{PROGRESS}") is None
    answers.set()
    recorder._progress.wait()
    assert json.loads(store.get(f"{PREFIX}/{PROGRESS}") or b"")["step"] == 1


def test_a_lost_lease_that_the_progress_meets_stops_the_training(made: Made, store: LocalStore) -> None:
    recorder, state = made()
    store.put("driver/000002.json", b"another driver's")
    walk(recorder, state, 1)
    recorder._progress._thread.shutdown()
    with pytest.raises(LeaseLostError, match="another driver has taken over"):
        recorder.after_step(state, 1.0)
    assert store.get(f"{PREFIX}/{PROGRESS}") is None


def test_in_a_store_over_a_network_the_progress_is_written_less_often(store: LocalStore) -> None:
    far = LocalStore(store.root)
    far.url = "s3://bucket/run"
    every = [_Progress(Destination(it, PREFIX, PLACE, HOLDER))._every for it in (store, far)]
    assert every == [1.0, 10.0]


def test_a_checkpoint_for_those_who_leave_is_written_when_save_returns(made: Made, store: LocalStore) -> None:
    recorder, state = made()
    walk(recorder, state, 5)
    recorder.save(state)
    assert pointers(store) == [4, 5]
    assert newest(store).facts["losses"] == [0.5 + step for step in range(1, 6)]
