"""Which networks of a run are compared, on which images, and what is said where a run kept no predictions."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ray_ns.artifacts.scores import COLUMNS, PREDICTIONS
from ray_ns.errors import IntegrityError
from ray_ns.export.verdicts import verdicts
from ray_ns.labels import files
from ray_ns.methods import METHODS
from ray_ns.methods.one_round import one_round
from ray_ns.store.commit import Output, ensure
from ray_ns.store.objects import LocalStore

IMAGES = 40


@pytest.fixture
def score(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Commit a turn that has so many validation and test images right, the first ones; gives its row of the report."""
    store = LocalStore(tmp_path)

    def scored(turn: str, validation: int, test: int, kept: bool = True, best: bool = False) -> dict[str, Any]:
        def work(stage: Output) -> tuple[dict[str, Any], int]:
            right = {"validation": validation, "test": test}
            made = {PREDICTIONS[name]: predictions(of) for name, of in right.items()} if kept else {}
            stage.publish(0, {"metrics.json": b"{}", **made}, {})
            return {name: {"images": IMAGES, "top1": of / IMAGES} for name, of in right.items()}, 1

        ensure(store, f"{turn}/evaluate", {"right": [validation, test]}, work, lambda: None)
        return {"round": turn, "validation_top1": validation / IMAGES, "test_top1": test / IMAGES, "best": best}

    scored.store = store  # type: ignore[attr-defined]
    return scored


def predictions(right: int) -> bytes:
    """Of ``right`` images right, the last one unreadable where it is wrong."""
    label = [0] * right + [1] * (IMAGES - right - 1) + [None] * (right < IMAGES)
    columns = [np.arange(IMAGES), np.zeros(IMAGES, np.int16), pa.array(label, pa.int16()), np.full(IMAGES, 0.5, "f4")]
    return files.to_parquet(
        pa.table(dict(zip(COLUMNS, columns, strict=True))), files.About(("a", "b"), ("test", "digest")), {}
    )


def test_the_best_student_is_compared_with_teacher_and_control_on_test(score: Any) -> None:
    rows = [
        score("rounds/0", 20, 20),
        score("rounds/1", 30, 34, best=True),
        score("rounds/2", 25, 40),
        score("control", 22, 33),
    ]
    teacher, control = verdicts(score.store, rows)
    assert (teacher.network, teacher.against, teacher.corpus) == ("rounds/1", "rounds/0", "test")
    assert (teacher.verdict.points, teacher.verdict.word) == (35.0, "better")
    assert (control.against, control.verdict.points, control.verdict.word) == ("control", 2.5, "cannot tell")
    assert control.as_json() | {"p": 1.0, "verdict": "cannot tell", "corpus": "test"} == control.as_json()


def test_where_the_teacher_is_kept_the_nearest_student_is_told_of(score: Any) -> None:
    rows = [
        score("rounds/0", 30, 30, best=True),
        score("rounds/1", 10, 40),
        score("rounds/2", 30, 31),
        score("control", 40, 40),
    ]
    found = verdicts(score.store, rows)
    assert [(it.network, it.against, it.corpus) for it in found] == [
        ("rounds/2", "rounds/0", "validation"),
        ("rounds/2", "rounds/0", "test"),
    ]
    assert [it.verdict.word for it in found] == ["cannot tell"] * 2


def test_a_run_of_one_turn_compares_nothing(score: Any) -> None:
    assert verdicts(score.store, [score("rounds/0", 30, 30, best=True)]) == []


def test_a_run_that_kept_no_predictions_is_compared_by_its_shares(score: Any) -> None:
    rows = [score("rounds/0", 20, 20, kept=False), score("rounds/1", 30, 34, kept=False, best=True)]
    (found,) = verdicts(score.store, rows)
    assert (found.verdict.points, found.verdict.p) == (35.0, None)


def test_a_missing_commit_is_damage(score: Any) -> None:
    rows = [score("rounds/0", 20, 20), score("rounds/1", 30, 34, best=True)]
    score.store.delete("rounds/0/evaluate/commit.json")
    with pytest.raises(IntegrityError, match="rounds/0/evaluate has no commit"):
        verdicts(score.store, rows)


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize("kept", [False, True], ids=["promoted", "the teacher is kept"])
def test_each_control_of_a_method_with_one_student_is_compared_with_that_one(
    score: Any, method: Any, kept: bool
) -> None:
    controls = ["control", "control-no-feedback", "control-uda", "control-pseudo-label"]
    rows = [
        score("rounds/0", 30, 30, best=kept),
        score("rounds/1", 10, 34, best=not kept),
        *(score(name, 20, 20 + at) for at, name in enumerate(controls)),
    ]
    found = {it.against: it for it in verdicts(score.store, rows, method) if it.corpus == "test"}
    assert {it.network for it in found.values()} == {"rounds/1"}
    if kept and METHODS[method] is not one_round:
        assert [*found] == ["rounds/0"], "of the best, which is no student, or there is none"
        return
    assert [*found] == ["rounds/0", *controls]
    assert [it.verdict.points for it in found.values()] == [10.0, 35.0, 32.5, 30.0, 27.5]
