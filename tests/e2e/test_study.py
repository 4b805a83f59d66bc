"""A small run of a study is made without Ray: to the same bytes."""

import json
from pathlib import Path

import pytest
from support.tiny_run import Finished, digests

from ray_ns.config.read import load
from ray_ns.engine.study import carry_here

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def made_here(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny run once more, in this process."""
    run = tmp_path_factory.mktemp("here") / "run"
    carry_here(load(finished.config, [f"run.dir={run}"]), None, "plain")
    return run


def test_a_run_in_this_process_commits_what_a_run_on_ray_commits(finished: Finished, made_here: Path) -> None:
    assert digests(made_here) == digests(finished.run)


def test_its_trainings_know_their_memory_as_those_on_ray_do(finished: Finished, made_here: Path) -> None:
    for turn in ("rounds/0", "rounds/1"):
        told = [json.loads((run / turn / "train/cost.json").read_text()) for run in (finished.run, made_here)]
        assert [it["memory_mb"] > 100 for it in told] == [True, True]
