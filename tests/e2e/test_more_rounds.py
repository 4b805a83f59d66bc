"""A finished run goes on for a second round: the bytes of a run that had two from the start, and nothing is lost."""

from pathlib import Path

import pytest
from support.tiny_run import Finished, digests, files, ray_ns, report

pytestmark = pytest.mark.ray

ALIKE = ("run.patience=2", "control.enabled=true")


def weights(run: Path, turn: str) -> bytes:
    (path,) = (run / turn / "train/data").rglob("model.safetensors")
    return path.read_bytes()


def test_a_second_round_on_a_finished_run(finished: Finished, tmp_path: Path) -> None:
    run, nothing = tmp_path / "run", tmp_path / "nothing"
    words = ["run", str(finished.config), *ALIKE, "--json"]
    ray_ns(*words, f"run.dir={run}", "--fork", str(finished.run))  # so that patience does not end it
    before = files(run)
    grown = report(ray_ns(*words, f"run.dir={run}", "run.rounds=2"))
    whole = report(ray_ns(*words, f"run.dir={nothing}", "run.rounds=2"))
    stay = {name for name in before if name.startswith(("rounds/", "control/", "report/", "corpora", "run.json"))}
    after = files(run)
    assert {name: after[name] for name in stay} == {name: before[name] for name in stay}
    own, other = digests(run), digests(nothing)
    rounds = {name for name in other if name.startswith(("rounds/", "digests"))}
    assert {name: own[name] for name in rounds} == {name: other[name] for name in rounds}
    assert weights(run, "rounds-2/control") == weights(nothing, "control") != weights(run, "control")
    assert [row["round"] for row in grown["rounds"]] == ["rounds/0", "rounds/1", "rounds/2", "rounds-2/control"]
    assert grown["gain_points"] == whole["gain_points"]
    assert grown["best_weights_sha256"] == whole["best_weights_sha256"]
    ray_ns("verify", str(run))
    assert "finished" in ray_ns("status", str(run)).stdout
    again = files(run)
    assert report(ray_ns(*words, f"run.dir={run}", "run.rounds=2")) == grown
    assert files(run) == again
