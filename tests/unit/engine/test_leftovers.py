"""``ray-ns gc``: what it prints and removes, with which exit code it leaves, and that it knows every stage's files."""

import ast
import json
from pathlib import Path
from typing import Any

import pytest
from support.aged import age
from support.in_process import Call
from support.leases import held_by

import ray_ns.engine.stages as stages
from ray_ns.engine.leftovers import NAMES
from ray_ns.engine.workers.selecting import is_aside, place_aside
from ray_ns.store import gc, layout
from ray_ns.store.commit import Output, ensure
from ray_ns.store.objects import LocalStore

LEFT = (".ray/x/checkpoint_manager_snapshot.json", f"rounds/1/label/data/000000-{'0' * 16}/labels.parquet")


@pytest.fixture
def run(tmp_path: Path) -> LocalStore:
    """A run with a stage, two leftovers of 1500 bytes and a file of the user's, all of them two days old."""
    store = LocalStore(tmp_path / "run")
    layout.begin(store, {"run": {}}, {"pool": []}, lambda: None, layout.Classes(10))

    def work(output: Output) -> tuple[dict[str, Any], int]:
        output.publish(0, {"labels.parquet": b"labels"}, {})
        return {}, 1

    ensure(store, "rounds/1/label", {}, work, lambda: None)
    for key in LEFT:
        store.put(key, bytes(1500))
    store.put("notes/mine.txt", b"mine")
    age(store.root)
    return store


def there(store: LocalStore) -> set[str]:
    return {it.key for it in store.ages("")}


def test_it_says_what_how_much_and_why_and_removes_nothing_until_it_is_told(run: LocalStore, ray_ns: Call) -> None:
    before = there(run)
    left = ray_ns("gc", run.url)
    assert (left.code, left.err) == (0, "")
    rays, labels, unknown, last = left.out.splitlines()
    assert rays.split()[:5] == [".ray", "1", "file", "1.5", "kB"]
    assert labels.split()[:5] == ["rounds/1/label/data", "1", "file", "1.5", "kB"]
    assert labels.endswith("data that no commit and no finished part names")
    assert unknown == "1 file not the run's by name, never removed: notes/ (1)"
    assert "--delete' removes 2 files, 3.0 kB. Forks of this run" in last
    assert there(run) == before
    left = ray_ns("gc", run.url, "--delete")
    assert left.code == 0
    assert left.out.splitlines()[-1] == "removed: 2 files, 3.0 kB"
    assert there(run) - {"driver/000001.json", "driver/heartbeat.json"} == before - set(LEFT)
    assert ray_ns("gc", run.url).out.splitlines()[-1] == "nothing to remove"
    assert ray_ns("verify", run.url).code == 0


def test_where_nothing_is_left_over_no_lease_is_taken(run: LocalStore, ray_ns: Call) -> None:
    for key in LEFT:
        run.delete(key)
    before = there(run)
    assert ray_ns("gc", run.url, "--delete").code == 0
    assert there(run) == before


def test_as_json_it_is_one_object(run: LocalStore, ray_ns: Call) -> None:
    run.put(".ray/young", b"abc")
    found = json.loads(ray_ns("gc", run.url, "--json").out)
    assert {name: found[name] for name in ("removed", "files", "bytes", "young", "unknown")} == {
        "removed": False,
        "files": 2,
        "bytes": 3000,
        "young": {"files": 1, "bytes": 3},
        "unknown": ["notes/mine.txt"],
    }
    assert [(it["folder"], it["files"], it["bytes"]) for it in found["groups"]] == [
        (".ray", 1, 1500),
        ("rounds/1/label/data", 1, 1500),
    ]
    left = ray_ns("gc", run.url, "--delete", "--json")
    assert json.loads(left.out)["removed"]
    assert [json.loads(line)["event"] for line in left.err.splitlines()] == ["begin", "end"]


def test_beside_another_driver_it_leaves_with_3_and_removes_nothing(run: LocalStore, ray_ns: Call) -> None:
    held_by(run, 1)
    before = there(run)
    left = ray_ns("gc", run.url, "--delete")
    assert left.code == 3
    assert "another driver is at work" in left.err
    assert there(run) == before


def test_beside_a_damaged_record_it_leaves_with_4_and_removes_nothing(run: LocalStore, ray_ns: Call) -> None:
    run.put("rounds/1/label/commit.json", b"{}")
    before = there(run)
    left = ray_ns("gc", run.url, "--delete")
    assert left.code == 4
    assert "rounds/1/label/commit.json" in left.err
    assert left.err.endswith("What it named is unknown, so nothing is removed.\n")
    assert there(run) == before


def test_where_no_run_has_begun_it_leaves_with_2(tmp_path: Path, ray_ns: Call) -> None:
    assert ray_ns("gc", tmp_path).code == 2


def test_what_a_selection_sets_aside_is_known(run: LocalStore) -> None:
    key = f"{place_aside('rounds/1/label')}000003-{'a' * 16}.parquet"
    assert is_aside(key)
    run.put(key, b"x")
    age(run.root)
    assert key in {it.key for it in gc.survey(run, NAMES).old}


def test_every_name_that_a_stage_gives_its_files_is_known() -> None:
    """Names of files stand in the code of the stages as constants or literals."""
    package = Path(stages.__file__).parents[2]
    found = set()
    for path in (*package.glob("artifacts/*.py"), *package.glob("engine/**/*.py"), *package.glob("models/files.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                name, dot, ending = node.value.rpartition(".")
                if dot and name.isidentifier() and ending in {"parquet", "safetensors"}:
                    found.add(node.value)
    assert {"labels.parquet", "selection.parquet", "model.safetensors"} <= found
    assert found <= NAMES
