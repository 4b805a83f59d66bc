"""A run goes on for more rounds: the record of it, where its control and report lie, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
from support.tiny_run import write_tiny

from ray_ns.engine.opening import drive
from ray_ns.engine.stages.report import Report
from ray_ns.errors import InputError
from ray_ns.store import layout
from ray_ns.store.commit import ensure
from ray_ns.store.objects import LocalStore
from ray_ns.store.status import read_status, run_order
from ray_ns.store.verify import verify


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("rounds"))


def start(tiny: Path, run: Path, *words: str, **how: Any) -> tuple[str, int | None]:
    """Drive a run as far as it goes without a stage: where it ends, and for how many rounds it goes on."""
    with drive(str(tiny), [f"run.dir={run}", *words], "plain", **how) as opened:
        return opened.ending, opened.continued


def end(run: Path, *tops: float, place: str = "report") -> None:
    """A report of the teacher and so many rounds, with these scores on the validation images."""
    rows: list[dict[str, Any]] = [{"round": f"rounds/{at}", "validation_top1": top} for at, top in enumerate(tops)]
    rows.append({"round": "control", "validation_top1": 1.0})
    value = {"rounds": rows}

    def work(output: Any) -> Any:
        from ray_ns.seals import canonical

        output.publish(0, {"report.json": canonical(value)}, {})
        return {}, 1

    ensure(LocalStore(run), place, {"stages": [], "report": value}, work, lambda: None)


def records(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.glob("*.json")}


def test_more_rounds_are_written_down_once_and_everything_before_stays(tiny: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert start(tiny, run) == ("", None)
    end(run, 0.5, 0.6)
    before = records(run)
    assert start(tiny, run, "run.rounds=3") == ("rounds-3/", 3)
    assert start(tiny, run, "run.rounds=3") == ("rounds-3/", 3)
    after = records(run)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"continued-1.json"}
    store = LocalStore(run)
    assert layout.continued(store) == [3]
    assert layout.last_stage(store) == "rounds-3/report"
    assert (layout.settings(store) or {})["run"]["rounds"] == 3
    assert read_status(store.url, [Report.name])["finished"] is False
    end(run, 0.5, 0.6, 0.7, 0.8, place="rounds-3/report")
    assert read_status(store.url, [Report.name])["finished"] is True
    assert start(tiny, run, "run.rounds=5") == ("rounds-5/", 5)
    assert layout.continued(store) == [3, 5]
    assert {fault for _, fault in verify(store)} == {None}


@pytest.mark.parametrize("words", [["run.rounds=2"], ["run.rounds=4", "run.seed=9"], []])
def test_fewer_rounds_and_other_settings_are_refused(tiny: Path, tmp_path: Path, words: list[str]) -> None:
    start(tiny, tmp_path / "run")
    start(tiny, tmp_path / "run", "run.rounds=3")
    before = records(tmp_path / "run")
    with pytest.raises(InputError) as caught:
        start(tiny, tmp_path / "run", *words)
    assert ("run.seed: 3 -> 9" if len(words) == 2 else "run.rounds: 3 -> ") in str(caught.value)
    assert ("run.rounds" in str(caught.value)) == (len(words) < 2)
    assert records(tmp_path / "run") == before


def test_a_run_that_patience_has_ended_does_not_go_on(tiny: Path, tmp_path: Path) -> None:
    start(tiny, tmp_path / "run")
    end(tmp_path / "run", 0.6, 0.6)  # the earlier of two equals is the best
    with pytest.raises(InputError, match=r"ended after round 1, since run\.patience = 1: 1 rounds in a row .* --fork "):
        start(tiny, tmp_path / "run", "run.rounds=3")
    assert layout.continued(LocalStore(tmp_path / "run")) == []


def test_a_run_that_has_not_ended_goes_on(tiny: Path, tmp_path: Path) -> None:
    start(tiny, tmp_path / "run")
    assert start(tiny, tmp_path / "run", "run.rounds=2") == ("rounds-2/", 2)


def test_a_fork_of_a_run_that_went_on_has_its_rounds_from_the_start(tiny: Path, tmp_path: Path) -> None:
    start(tiny, tmp_path / "other")
    start(tiny, tmp_path / "other", "run.rounds=3")
    assert start(tiny, tmp_path / "own", "run.rounds=3", fork=str(tmp_path / "other")) == ("", None)


@pytest.mark.parametrize("lost", ["continued-1.json", "continued-2.json"])
@pytest.mark.parametrize("register", [True, False])
def test_verify_misses_a_record_of_more_rounds(tiny: Path, tmp_path: Path, lost: str, register: bool) -> None:
    run = tmp_path / "run"
    start(tiny, run)
    for rounds in (2, 4):
        start(tiny, run, f"run.rounds={rounds}")
        end(run, 0.5, 0.6, 0.7, 0.8, 0.9, place=f"rounds-{rounds}/report")
    (run / lost).unlink()
    if not register:
        (run / "register" / lost).unlink()
    assert "is missing" in (dict(verify(LocalStore(run)))[lost] or "")


def test_the_order_of_a_run_that_went_on() -> None:
    stages = [
        *("rounds/0/train", "rounds/2/label", "rounds/3/train", "control/train", "control/evaluate", "report"),
        *("rounds-3/control/train", "rounds-3/report", "rounds-12/control/train", "rounds-12/report"),
        *("pool-2/rounds/1/label", "pool-2/report", "pool-2/rounds-3/report"),
    ]
    order = ["label", "train", "evaluate", "report"]
    assert sorted(sorted(stages), key=lambda it: run_order(it, order)) == stages
    assert [layout.stage_of(f"{it}/commit.json") for it in stages] == stages
