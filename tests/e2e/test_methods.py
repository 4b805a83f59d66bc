"""Meta Pseudo Labels with all its controls on Ray, forked from a run by Noisy Student; a method that is switched."""

import json
import shutil
from pathlib import Path

import pytest
from support.tiny_run import Finished, ray_ns

from ray_ns.config.read import load
from ray_ns.engine.study import carry_here

pytestmark = pytest.mark.ray

META = ("run.method=meta_pseudo_labels", "student.steps=6", "cluster.checkpoint_steps=2")
TURNS = ["rounds/0", "rounds/1", "control", "control-no-feedback", "control-uda", "control-pseudo-label"]


@pytest.fixture(scope="module")
def meta(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, dict]:
    """Its directory, what it printed, and its report. The student is trained on Ray, the controls in this process."""
    folder = tmp_path_factory.mktemp("meta")
    shutil.copytree(finished.run, folder / "other")
    ray_ns("run", str(finished.config), f"run.dir={folder}/student", *META, "--fork", f"{folder}/other")
    settings = [f"run.dir={folder}/run", *META, "control.enabled=true"]
    carry_here(load(finished.config, settings), f"{folder}/student", "plain")
    words = ["run", str(finished.config), *settings]
    return folder / "run", ray_ns(*words).stdout, json.loads(ray_ns(*words, "--json").stdout)


def test_all_controls_are_in_the_report_and_in_the_table(meta) -> None:
    _, printed, report = meta
    assert [row["round"] for row in report["rounds"]] == TURNS
    assert [row["kept"] > 0 for row in report["rounds"]] == [False, True, False, True, True, True]
    table = " ".join(printed.split())  # its cells are as narrow as the page wants them
    for control in ("no feedback", "UDA alone", "plain pseudo labels"):
        assert f"student 1 against the control: {control}, on test:" in table


def test_each_control_is_trained_by_its_own_method(meta) -> None:
    run, _, report = meta
    networks = {row["round"]: row["parameters"] for row in report["rounds"]}
    assert networks["rounds/1"] == networks["control-uda"]
    recipes = {turn: (run / turn / "train/plan.json").read_text() for turn in ("control-no-feedback", "control-uda")}
    assert '"mpl"' in recipes["control-no-feedback"]
    assert '"mpl"' not in recipes["control-uda"]


def test_its_directory_is_whole_and_its_status_is_in_order(meta) -> None:
    run, _, _ = meta
    assert ray_ns("verify", str(run)).returncode == 0
    stages = [row["stage"] for row in json.loads(ray_ns("status", str(run), "--json").stdout)["stages"]]
    trained = [it.removesuffix("/train") for it in stages if it.endswith("/train")]
    assert trained[:3] == TURNS[:3]
    assert set(trained) == set(TURNS)
    assert stages[-1] == "report"


def test_its_card_says_the_method_and_names_every_control(meta) -> None:
    card = (meta[0] / "best/README.md").read_text()
    assert "Meta Pseudo Labels" in card
    assert "control: UDA alone" in card


@pytest.mark.parametrize("method", ["noisy_student", "uda", "supervised"])
def test_a_method_that_is_switched_on_a_run_is_refused_by_its_name(meta, finished: Finished, method: str) -> None:
    words = (
        "run",
        str(finished.config),
        f"run.dir={meta[0]}",
        *META,
        "control.enabled=true",
        f"run.method={method}",
        "run.rounds=1",
    )
    refused = ray_ns(*words, check=False)
    assert refused.returncode == 2
    assert f"run.method: 'meta_pseudo_labels' -> '{method}'" in refused.stderr
