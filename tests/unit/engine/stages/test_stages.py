"""One list of stages: a new one is its own file and one line, and everything that names stages knows it."""

from pathlib import Path

import pytest
from support import toy_stage
from support.in_process import Call
from support.tiny_run import write_tiny

from ray_ns.engine import stages
from ray_ns.engine.check import check
from ray_ns.engine.opening import drive
from ray_ns.engine.stages.stage import Stage


@pytest.fixture
def with_toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "TURN", (*stages.TURN, toy_stage.Toy))  # the one line


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("stages"))


def test_every_stage_has_a_name_of_its_own_and_says_what_it_is() -> None:
    listed = [*stages.BEFORE, *stages.TURN, *stages.AFTER]
    assert len(set(stages.names())) == len(listed)
    assert all(issubclass(it, Stage) and it.__doc__ for it in listed)


@pytest.mark.usefixtures("with_toy")
def test_a_new_stage_appears_in_check(tiny: Path) -> None:
    found = {it.what: it for it in check(str(tiny), [])}
    assert found["toy"].line == "2 recipes would be counted"


@pytest.mark.usefixtures("with_toy")
def test_a_new_stage_runs_resumes_and_appears_in_until_status_and_the_seconds_of_the_table(
    tiny: Path, tmp_path: Path, ray_ns: Call
) -> None:
    words, worked = [f"run.dir={tmp_path / 'run'}"], toy_stage.worked
    with drive(str(tiny), words, "plain", until="toy") as run:
        assert run.ensure("rounds/1/toy", toy_stage.Toy(upstream=20)) == 22
        assert run.until_reached
        run.store.put("rounds/1/toy/timing.json", b'{"seconds": 2.5}')
        assert run.seconds_of("rounds/1") == 2.5
    with drive(str(tiny), words, "plain") as run:
        assert run.ensure("rounds/1/toy", toy_stage.Toy(upstream=20)) == 22
        assert not run.until_reached
    assert toy_stage.worked == worked + 1
    status = ray_ns("status", tmp_path / "run")
    assert "rounds/1/toy         committed, 1 parts" in status.out


@pytest.mark.parametrize(
    ("until", "words", "refused"),
    [
        ("toy", [], "label, select, train, evaluate."),
        ("nonsense", ["student.finetune.steps=2"], "label, select, train, finetune, evaluate."),
        ("fixres/tuned", ["student.fixres.size=36"], "label, select, train, fixres, evaluate."),
        ("fixres", [], "label, select, train, evaluate."),
        ("finetune", [], "label, select, train, evaluate."),  # there is none, so nothing would ever end the run
        ("label/counts", [], "label, select, train, evaluate."),  # a part of the labelling, or of the selection
        ("report", [], "label, select, train, evaluate."),
        ("", [], "label, select, train, evaluate."),
    ],
)
def test_until_takes_the_stages_that_round_1_has(
    tiny: Path, tmp_path: Path, ray_ns: Call, until: str, words: list[str], refused: str
) -> None:
    left = ray_ns("run", tiny, f"run.dir={tmp_path / 'run'}", *words, "--until", until)
    assert left.code == 2
    assert left.err == f"ray-ns: --until {until}: expected a stage that round 1 of this run has: {refused}\n"
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("with_toy")
def test_until_knows_a_new_stage(tiny: Path, ray_ns: Call) -> None:
    left = ray_ns("run", tiny, "--until", "nonsense")
    assert left.code == 2
    assert "evaluate, toy." in left.err


def test_until_finetune_is_taken_where_the_first_student_is_fine_tuned(tiny: Path, tmp_path: Path) -> None:
    words = [f"run.dir={tmp_path / 'run'}", "student.finetune.steps=2"]
    with drive(str(tiny), words, "plain", until="finetune") as run:
        assert run.until == "finetune"


def test_until_fixres_is_taken_where_the_first_student_has_it_and_check_tries_a_step(
    tiny: Path, tmp_path: Path
) -> None:
    words = [f"run.dir={tmp_path / 'run'}", "student.fixres.size=36"]
    with drive(str(tiny), words, "plain", until="fixres") as run:
        assert run.until == "fixres"
    found = {it.what: it for it in check(str(tiny), words)}
    assert found["fixres student"].line.startswith("at 36 px: resnet10t")
    assert found["fixres student"].figures["size"] == 36
    assert "fixres teacher" not in found
