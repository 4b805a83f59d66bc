"""``ray-ns compare`` on runs whose predictions are known: counts by hand, other images, older runs, no report."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from support.in_process import Call

from ray_ns.labels import schema
from ray_ns.report.compared import compare
from ray_ns.seals import canonical
from ray_ns.store import layout
from ray_ns.store.commit import ensure
from ray_ns.store.objects import LocalStore

TRUTH = [0, 1, 2, 0, 1, 2, 0, 1]


def made(
    root: Path, rounds: dict[str, list[int]], best: str, old: bool = False, images: bytes = b"x", seed: int = 0
) -> str:
    """A run with these predictions of eight test images, by round."""
    store, rows = LocalStore(root), []
    layout.begin(store, {"run": {"seed": seed}}, {"pool": []}, lambda: None, layout.Classes(3))
    for name, labels in rounds.items():
        columns = {
            "image_id": pa.array(range(8), pa.int64()),
            "truth": pa.array(TRUTH, pa.int16()),
            "label": pa.array([None if it < 0 else it for it in labels], pa.int16()),
            "confidence": pa.array([0.5] * 8, pa.float32()),
        }
        top1 = sum(a == b for a, b in zip(labels, TRUTH, strict=True)) / 8
        objects = {} if old else {"test.parquet": schema.to_parquet(pa.table(columns), {})}
        summary = {"test": {"images": 8, "top1": top1}}

        def work(output: Any, objects: Any = objects, summary: Any = summary) -> Any:
            output.publish(0, {"metrics.json": b"{}", **objects}, {})
            return summary, 1

        ensure(store, f"{name}/evaluate", {}, work, lambda: None)
        rows.append({"round": name, "validation_top1": 0.5, "test_top1": top1, "best": name == best})

    def digests(output: Any) -> Any:
        output.publish(0, {"test": images}, {})
        return {}, 1

    ensure(store, "digests", {}, digests, lambda: None)
    report = {"report.json": canonical({"rounds": rows})}

    def end(output: Any) -> Any:
        output.publish(0, report, {})
        return {}, 1

    ensure(store, "report", {}, end, lambda: None)
    return str(root)


WRONG_ONE = [0, 1, 2, 0, 1, 2, 0, -1]
WRONG_THREE = [1, 2, 0, 0, 1, 2, 0, 1]


def test_two_runs_are_paired_by_image(tmp_path: Path, ray_ns: Call) -> None:
    one = made(tmp_path / "one", {"rounds/0": WRONG_THREE, "rounds/1": WRONG_ONE, "control": WRONG_THREE}, "rounds/1")
    two = made(tmp_path / "two", {"rounds/0": WRONG_THREE, "rounds/1": TRUTH}, "rounds/0", seed=4)
    found = compare([one, two])
    assert found["settings"] == {two: ["run.seed: 0 -> 4"]}
    control, other = found["differences"]
    assert (control["network"], other["network"]) == (f"{one}/control", f"{two}/rounds/0")
    assert other["points"] == pytest.approx(-25.0)
    assert other["only"] == (1, 3)
    assert other["p"] == pytest.approx(10 / 16)
    assert other["low"] < -25 < other["high"]
    said = ray_ns("compare", one, two).out
    assert "differs in: run.seed: 0 -> 4" in said
    assert "), cannot tell; 1 images right here alone, 3 there alone; McNemar's exact p = 0.625" in said


def test_the_rounds_of_one_run_are_compared_with_its_best(tmp_path: Path) -> None:
    one = made(tmp_path / "one", {"rounds/0": WRONG_THREE, "rounds/1": WRONG_ONE, "control": WRONG_THREE}, "rounds/1")
    assert [it["network"] for it in compare([one])["differences"]] == [f"{one}/rounds/0", f"{one}/control"]


@pytest.mark.parametrize(("how", "why"), [({"old": True}, "kept no predictions"), ({"images": b"y"}, "not the same")])
def test_what_cannot_be_paired_is_said(tmp_path: Path, ray_ns: Call, how: dict[str, Any], why: str) -> None:
    one = made(tmp_path / "one", {"rounds/0": WRONG_ONE}, "rounds/0")
    two = made(tmp_path / "two", {"rounds/0": WRONG_THREE}, "rounds/0", **how)
    (found,) = compare([one, two])["differences"]
    assert found["p"] is None
    assert found["low"] < found["points"] < found["high"]
    assert f"not paired: {'a run' if 'old' in how else 'their'}" in ray_ns("compare", one, two).out
    assert why in found["unpaired"]


def test_a_run_that_has_not_ended_is_refused(tmp_path: Path, ray_ns: Call) -> None:
    store = LocalStore(tmp_path / "run")
    layout.begin(store, {"run": {}}, {"pool": []}, lambda: None, layout.Classes(3))
    left = ray_ns("compare", store.url)
    assert left.code == 2
    assert "has no report yet" in left.err
