"""Runs that an earlier version began, in FORMAT 1: verified, found finished, resumed and selected again."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.format_1 import computes_as_theirs, plans, unpack
from support.tiny_run import digests, files, ray_ns, report

from ray_ns.store.verify import UPSTREAM

pytestmark = pytest.mark.ray

# A selection at threshold 0.2, where the version that wrote FORMAT 1 puts it: the digest of all its settings.
PLACE = "rounds/1/select-4c1b83904911"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(tmp_path_factory.mktemp("format_1"))


@pytest.fixture(autouse=True)
def inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The config names its data from the folder where it lies."""
    monkeypatch.chdir(folder)


def own(inputs: dict[str, Any]) -> dict[str, Any]:
    """The inputs of a stage but those that are digests of what other stages made."""
    return {name: value for name, value in inputs.items() if name not in UPSTREAM}


@pytest.mark.parametrize("run", ["finished", "half"])
def test_they_are_as_they_were_written(folder: Path, run: str) -> None:
    checked = json.loads(ray_ns("verify", run, "--json").stdout)
    assert checked["checked"] > 20
    assert not checked["faults"]
    assert json.loads(ray_ns("status", run, "--json").stdout)["finished"] == (run == "finished")


def test_a_finished_one_is_left_as_it_is_and_refused_to_another_config(folder: Path) -> None:
    before = files(folder / "finished")
    found = report(ray_ns("run", "config.yaml", "run.dir=finished", "--json"))
    assert [row["round"] for row in found["rounds"]] == ["rounds/0", "rounds/1", "rounds/2", "control"]
    refused = ray_ns("run", "config.yaml", "run.dir=finished", "data.size=32", "teacher.ema_decay=0.9", check=False)
    assert refused.returncode == 2
    assert "data.size: 16 -> 32; teacher.ema_decay: None -> 0.9" in refused.stderr
    after = files(folder / "finished")
    assert {name: after[name] for name in before if not name.startswith("driver/")} == {
        name: stat for name, stat in before.items() if not name.startswith("driver/")
    }
    added = {name for name in after if name not in {*before, "places.json"} and not name.startswith("driver/")}
    assert added == {f"best/{name}" for name in ("model.safetensors", "config.json", "labels.txt", "README.md")}


@pytest.mark.chaos
def test_a_half_done_one_is_resumed_to_the_digests_it_would_have_had(folder: Path) -> None:
    half, finished = folder / "half", folder / "finished"
    begun = files(half)
    ray_ns("run", "config.yaml", "run.dir=half")
    kept = {name: stat for name, stat in files(half).items() if name in begun}
    for name, stat in kept.items():
        if "/done/" in name or name.endswith(("plan.json", "commit.json", "run.json", "corpora-1.json")):
            assert stat == begun[name], name
    there = {name: own(inputs) for name, inputs in plans(finished).items()}
    assert {name: own(inputs) for name, inputs in plans(half).items()} == there
    assert digests(half).keys() == digests(finished).keys()
    if computes_as_theirs():  # what is trained here has the last bits of this processor and this torch
        assert digests(half) == digests(finished)
    assert not json.loads(ray_ns("verify", "half", "--json").stdout)["faults"]


def test_a_selection_by_other_settings_lies_where_format_1_puts_it(folder: Path) -> None:
    before = digests(folder / "finished")
    words = ["select", "config.yaml", "run.dir=finished", "--round", "1", "--json"]
    assert report(ray_ns(*words))["place"] == "rounds/1/select"
    found = report(ray_ns(*words, "select.threshold=0.2"))
    assert found["place"] == PLACE
    assert {name: of for name, of in digests(folder / "finished").items() if name != PLACE} == before
    assert not json.loads(ray_ns("verify", "finished", "--json").stdout)["faults"]
