"""A run forked with another threshold, killed on its way: what it takes, its bytes, what verify says of both runs."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.in_process import undated
from support.tiny_run import Finished, digests, faulty, files, ray_ns

pytestmark = pytest.mark.ray

CHANGED = "select.threshold=0.5"
TAKEN = ("digests", "rounds/0/train", "rounds/0/evaluate", "rounds/1/label")


@dataclass
class Forked:
    """A fork of a copy of the finished run, killed in the middle and resumed; and the same run from nothing."""

    other: Path
    own: Path
    nothing: Path
    said: str
    other_before: dict[str, tuple[int, int]]


@pytest.fixture(scope="module")
def forked(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Forked:
    folder = tmp_path_factory.mktemp("fork")
    other, own, nothing = (folder / name for name in ("other", "own", "nothing"))
    shutil.copytree(finished.run, other)
    before = files(other)
    ray_ns("run", str(finished.config), f"run.dir={nothing}", CHANGED)
    words = ["run", str(finished.config), f"run.dir={own}", CHANGED, "--fork", str(other)]
    killed = ray_ns(*words, env=faulty("after:rounds/1/select/commit:1"), check=False)
    assert killed.returncode == -9
    resumed = ray_ns("run", str(finished.config), f"run.dir={own}", CHANGED)
    return Forked(other, own, nothing, killed.stderr + resumed.stderr, before)


def test_no_teacher_step_and_no_label_is_made(forked: Forked) -> None:
    made = {path.relative_to(forked.own).as_posix() for path in forked.own.rglob("data")}
    assert made == {"rounds/1/select/data", "rounds/1/train/data", "rounds/1/evaluate/data", "report/data"}
    assert not list((forked.own / "rounds/0").rglob("timing.json"))
    assert files(forked.other) == forked.other_before


def test_its_commits_are_those_of_a_run_from_nothing(forked: Forked) -> None:
    assert digests(forked.own) == digests(forked.nothing)
    assert (forked.own / "run.json").read_bytes() == (forked.nothing / "run.json").read_bytes()
    assert (forked.own / "corpora-1.json").read_bytes() == (forked.nothing / "corpora-1.json").read_bytes()


def test_it_says_what_it_took_and_why_not_the_rest(forked: Forked) -> None:
    lines = undated(forked.said).splitlines()
    assert f"taken from {forked.other}: 4 stages ({', '.join(TAKEN)})" in lines
    assert "rounds/1/select is made here: in the other run it differs in select.threshold" in lines


@pytest.fixture
def damaged(forked: Forked) -> Iterator[str]:
    """The name of a file of the other run, of which one bit is flipped while a test lasts."""
    path = next((forked.other / "rounds/1/label/data").rglob("labels.parquet"))
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    yield path.relative_to(forked.other).as_posix()
    path.write_bytes(data)


def test_verify_follows_the_reference(forked: Forked) -> None:
    found = json.loads(ray_ns("verify", str(forked.own), "--json").stdout)
    assert found["faults"] == {}
    whole = json.loads(ray_ns("verify", str(forked.nothing), "--json").stdout)["checked"]
    parts = len([*forked.nothing.rglob("done/*.json")]) - len([*forked.own.rglob("done/*.json")])
    assert found["checked"] >= whole - parts, "records of parts are not taken, all data are"


def test_damage_in_the_other_run_is_found_in_the_fork(forked: Forked, damaged: str) -> None:
    left = ray_ns("verify", str(forked.own), "--json", check=False)
    assert left.returncode == 4
    ((key, fault),) = json.loads(left.stdout)["faults"].items()
    assert key == damaged
    assert fault.startswith(f"{damaged} in {forked.other} does not match its hash")


def test_other_verbs_read_through_the_reference(finished: Finished, forked: Forked) -> None:
    words = [str(finished.config), f"run.dir={forked.own}", "select.threshold=0.4", "--json"]
    own = json.loads(ray_ns("select", *words).stdout)
    words[1] = f"run.dir={forked.nothing}"
    assert own == json.loads(ray_ns("select", *words).stdout)
    assert "finished" in ray_ns("status", str(forked.own)).stdout
