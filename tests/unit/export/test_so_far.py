"""Which network is the best of a run that has not ended."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ray_ns.artifacts.scores import COLUMNS, PREDICTIONS
from ray_ns.export.so_far import best_so_far
from ray_ns.labels import files
from ray_ns.store import layout
from ray_ns.store.commit import Commit, Output, ensure
from ray_ns.store.objects import LocalStore


def commit(store: LocalStore, place: str, summary: dict[str, Any], inputs: dict[str, Any]) -> Commit:
    def work(output: Output) -> tuple[dict[str, Any], int]:
        output.publish(0, {"model.safetensors": place.encode()}, {})
        return summary, 1

    return ensure(store, place, inputs, work, lambda: None)


def begun(folder: Path, format: int, run: dict[str, Any]) -> LocalStore:
    store = LocalStore(folder)
    layout.begin(store, {"run": run}, {}, lambda: None, None, format)
    return store


def turn(store: LocalStore, place: str, top1: float | None, *after: str) -> None:
    network = commit(store, f"{place}/train", {}, {})
    for stage in after:
        network = commit(store, f"{place}/{stage}", {}, {"begin": network.digest})
    if top1 is not None:
        commit(store, f"{place}/evaluate", {"validation": {"top1": top1}}, {"network": network.digest})


@pytest.mark.parametrize(
    ("rounds", "best"),
    [
        ({"rounds/0": None}, None),
        ({"rounds/0": 0.5, "rounds/1": None}, "rounds/0/train"),
        ({"rounds/0": 0.5, "rounds/1": 0.5}, "rounds/0/train"),
        ({"rounds/0": 0.5, "rounds/1": 0.6, "rounds/2": 0.6, "control": 0.9}, "rounds/1/train"),
        ({"rounds/0": 0.5, "rounds/2": 0.6, "rounds/10": 0.6}, "rounds/2/train"),
        ({"rounds/0": 0.5, "rounds/1": 0.6, "pool-2/rounds/1": 0.7}, "pool-2/rounds/1/train"),
    ],
)
def test_the_best_on_validation_images_the_earlier_of_two_equals(
    tmp_path: Path, rounds: dict[str, float | None], best: str | None
) -> None:
    store = begun(tmp_path, 3, {})  # by top-1 on the validation images, as in every run up to format 3
    for place, top1 in rounds.items():
        turn(store, place, top1)
    found = best_so_far(store)
    assert (found and found[1].place) == best
    assert best is None or (found is not None and f"{found[0]}/train" == best)


@pytest.mark.parametrize("after", [["finetune"], ["fixres/tuned"], ["finetune", "fixres/tuned"]])
def test_of_a_round_with_more_than_a_training_the_network_that_was_evaluated(tmp_path: Path, after: list[str]) -> None:
    store = begun(tmp_path, 4, {})
    turn(store, "rounds/0", 0.5, *after)
    found = best_so_far(store)
    assert found is not None
    assert found[1].place == f"rounds/0/{after[-1]}"


def test_a_teacher_that_was_given_is_the_network_of_its_round(tmp_path: Path) -> None:
    store = begun(tmp_path, 4, {})
    given = commit(store, "rounds/0/network", {}, {})
    commit(store, "rounds/0/evaluate", {"validation": {"top1": 0.5}}, {"network": given.digest})
    found = best_so_far(store)
    assert found is not None
    assert found[1].place == "rounds/0/network"


@pytest.mark.parametrize(
    ("rounds", "best"),
    [
        ({"rounds/0": 0.5, "rounds/1": 0.5, "rounds/2": 0.4}, "rounds/2/train"),
        ({"rounds/0": 0.5, "rounds/1": None}, "rounds/0/train"),
        ({"rounds/0": 0.5, "rounds/1": 0.6, "rounds/2": 0.7, "pool-2/rounds/1": 0.6}, "pool-2/rounds/1/train"),
        ({"rounds/0": 0.5, "rounds/1": 0.6, "rounds/2": 0.7, "pool-2/rounds/1": None}, "rounds/2/train"),
    ],
)
@pytest.mark.parametrize("rule", [{}, {"promote": "always"}])
def test_a_run_whose_students_are_promoted_has_its_newest_one(
    tmp_path: Path, rounds: dict[str, float | None], best: str, rule: dict[str, Any]
) -> None:
    """The evaluations here keep no answers, so nothing speaks against a student."""
    store = begun(tmp_path, 4, rule)
    for place, top1 in rounds.items():
        turn(store, place, top1)
    found = best_so_far(store)
    assert found is not None
    assert found[1].place == best


@pytest.mark.parametrize(("format", "best"), [(4, "rounds/0/train"), (5, "rounds/1/train")])
def test_a_run_goes_on_by_the_words_of_its_own_format(tmp_path: Path, format: int, best: str) -> None:
    """Five of 100 images are no reason to keep a teacher, and were one up to format 4."""
    store = begun(tmp_path, format, {})
    for number, right in enumerate((60, 55)):
        network = commit(store, f"rounds/{number}/train", {}, {})
        label = np.where(np.arange(100) < right, 0, 1).astype(np.int16)
        columns = (np.arange(100), np.zeros(100, np.int16), label, np.full(100, 0.5, np.float32))
        about = files.About(("a", "b"), ("validation", "digest"))
        made = files.to_parquet(pa.table(dict(zip(COLUMNS, columns, strict=True))), about, {})

        def work(output: Output, made: bytes = made, right: int = right) -> tuple[dict[str, Any], int]:
            output.publish(0, {PREDICTIONS["validation"]: made}, {})
            return {"validation": {"top1": right / 100}}, 1

        ensure(store, f"rounds/{number}/evaluate", {"network": network.digest}, work, lambda: None)
    found = best_so_far(store)
    assert found is not None
    assert found[1].place == best
