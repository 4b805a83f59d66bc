"""The command line: what it prints, where, and with which exit code it leaves."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.in_process import Call, Left, undated

from ray_ns.errors import InputError, IntegrityError, RayNsError, ResumableError
from ray_ns.seals import seal
from ray_ns.store import layout
from ray_ns.store.commit import Output, ensure
from ray_ns.store.objects import LocalStore


def free() -> None:
    """A fence nobody has run into."""


@pytest.fixture
def finished(tmp_path: Path) -> LocalStore:
    """A small run with everything committed."""
    store = LocalStore(tmp_path / "run")
    layout.begin(store, {"run": {"seed": 0}}, {"pool": []}, free, layout.Classes(10))

    def work(stage: Output) -> tuple[dict[str, Any], int]:
        for part in range(2):
            stage.publish(part, {"labels.bin": bytes([part]) * 30}, {})
        return {}, 2

    for stage in ("rounds/0/train", "report"):
        ensure(store, stage, {"seed": 0}, work, free)
    return store


def one_line(text: str) -> str:
    """``text`` as the one line of ours that it has to be."""
    assert text.startswith("ray-ns: ")
    assert text.endswith("\n")
    assert text.count("\n") == 1
    assert "Traceback" not in text
    return text


def test_config_prints_every_setting_as_yaml(ray_ns: Call) -> None:
    left = ray_ns("config")
    assert left.code == 0
    assert left.err == ""
    assert {"run", "data", "teacher", "student", "cluster"} <= set(yaml.safe_load(left.out))


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["status", "--help"], ["verify", "--help"]])
def test_help_is_no_error(ray_ns: Call, words: list[str]) -> None:
    left = ray_ns(*words)
    assert left.code == 0
    assert "Usage" in left.out


def test_a_user_meets_one_line_and_exit_code_2_and_no_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from ray_ns.cli import main; main()", "run", str(tmp_path / "none.yaml")]
    left = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "40"})
    assert left.returncode == 2
    assert left.stdout == ""
    assert str(tmp_path / "none.yaml") in one_line(undated(left.stderr, 2))


@pytest.mark.parametrize(
    ("text", "overrides", "wanted"),
    [
        (None, [], "cannot be read"),
        ("run: [", [], "not valid YAML"),
        ("run: {dir: x}", [], "teacher: missing"),
        ("run: {dir: x, sed: 1}", [], "run.sed: unknown key, did you mean seed?"),
        ("run: {dir: x}", ["run.seed"], "an override is written section.key=value"),
    ],
)
def test_a_run_of_a_bad_config_leaves_with_2_and_makes_nothing(
    ray_ns: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, overrides: list[str], wanted: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if text is not None:
        Path("c.yaml").write_text(text)
    left = ray_ns("run", "c.yaml", *overrides)
    assert left.code == 2
    assert wanted in one_line(left.err)
    assert left.out == ""
    assert {path.name for path in tmp_path.iterdir()} <= {"c.yaml"}


@pytest.mark.parametrize("words", [["run"], ["nothing"], ["status"], ["run", "c.yaml", "--until", "lunch"]])
def test_a_command_line_that_cannot_be_read_leaves_with_2(ray_ns: Call, words: list[str]) -> None:
    left = ray_ns(*words)
    assert left.code == 2
    assert "Traceback" not in left.err


@pytest.mark.parametrize("verb", ["status", "verify"])
@pytest.mark.parametrize("flags", [[], ["--json"]])
@pytest.mark.parametrize("place", ["empty", "nothing"])
def test_a_folder_without_a_run_leaves_with_2(
    ray_ns: Call, tmp_path: Path, verb: str, flags: list[str], place: str
) -> None:
    (tmp_path / "empty").mkdir()
    left = ray_ns(verb, tmp_path / place, *flags)
    assert left.code == 2
    said = one_line(left.err) if not flags else json.loads(left.err)["text"]
    assert str(tmp_path / place) in said
    assert left.out == ""
    assert list(tmp_path.iterdir()) == [tmp_path / "empty"]


@pytest.mark.parametrize("verb", ["status", "verify"])
def test_a_run_on_another_kind_of_storage_leaves_with_2(ray_ns: Call, verb: str) -> None:
    left = ray_ns(verb, "gs://bucket/run")
    assert left.code == 2
    assert "gs://bucket/run" in one_line(left.err)


def test_an_ingest_of_nothing_leaves_with_2_and_makes_nothing(ray_ns: Call, tmp_path: Path) -> None:
    left = ray_ns("ingest", tmp_path / "none", tmp_path / "out")
    assert left.code == 2
    assert str(tmp_path / "none") in one_line(left.err)
    assert not list(tmp_path.iterdir())


def test_status_lists_the_stages_and_the_driver(ray_ns: Call, finished: LocalStore) -> None:
    finished.put("control/train/plan.json", seal({"stage": "control/train", "inputs": {}}))
    left = ray_ns("status", finished.url)
    assert left.code == 0
    assert left.err == ""
    assert [line.split() for line in left.out.splitlines()] == [
        ["rounds/0/train", "committed,", "2", "parts"],
        ["control/train", "under", "way"],
        ["report", "committed,", "2", "parts"],
        ["finished"],
    ]


def test_status_as_json_is_one_object(ray_ns: Call, finished: LocalStore) -> None:
    left = ray_ns("status", finished.url, "--json")
    found = json.loads(left.out)
    assert left.code == 0
    assert found["finished"] is True
    assert {stage["stage"]: stage["state"] for stage in found["stages"]} == {
        "rounds/0/train": "committed",
        "report": "committed",
    }


def test_verify_of_an_untouched_run_says_how_much_it_checked(ray_ns: Call, finished: LocalStore) -> None:
    count = len(list(finished.list("")))
    left = ray_ns("verify", finished.url)
    assert (left.code, left.out, left.err) == (0, f"{count} objects checked, all as they were written\n", "")
    left = ray_ns("verify", finished.url, "--json")
    assert (left.code, json.loads(left.out)) == (0, {"checked": count, "faults": {}})


HARMED = [
    *("corpora-1.json", "rounds/0/train/plan.json", "rounds/0/train/commit.json"),
    *("rounds/0/train/done/000001.json", "rounds/0/train/data/000001"),
]


@pytest.mark.parametrize("prefix", HARMED)
def test_verify_leaves_with_4_after_one_flipped_bit_and_names_the_object(
    ray_ns: Call, finished: LocalStore, prefix: str
) -> None:
    (key,) = finished.list(prefix)
    data = bytearray(finished.get(key) or b"")
    data[len(data) // 2] ^= 16
    finished.put(key, bytes(data))
    left = ray_ns("verify", finished.url)
    assert left.code == 4
    assert left.out == ""
    *damaged, last = left.err.splitlines(keepends=True)
    assert damaged == [f"damaged: {key}\n"]
    assert key in one_line(last)


@pytest.mark.parametrize("verb", ["status", "verify"])
def test_a_harmed_run_record_leaves_with_4(ray_ns: Call, finished: LocalStore, verb: str) -> None:
    finished.put("run.json", (finished.get("run.json") or b"").replace(b'"seed":0', b'"seed":1'))
    left = ray_ns(verb, finished.url)
    assert left.code == 4
    assert "run.json" in one_line(left.err.splitlines(keepends=True)[-1])


def test_verify_as_json_lists_every_fault_and_still_leaves_with_4(ray_ns: Call, finished: LocalStore) -> None:
    harmed = sorted(finished.list("rounds/0/train/data/"))
    for key in harmed:
        finished.put(key, b"rot")
    left = ray_ns("verify", finished.url, "--json")
    assert left.code == 4
    found = json.loads(left.out)
    assert sorted(found["faults"]) == harmed
    assert found["checked"] == len(list(finished.list("")))
    *damaged, last = map(json.loads, left.err.splitlines())
    assert [(event["event"], event["text"]) for event in damaged] == [("damaged", f"damaged: {key}") for key in harmed]
    assert (last["event"], last["exit_code"]) == ("error", 4)


def test_verify_of_a_missing_object_leaves_with_4(ray_ns: Call, finished: LocalStore) -> None:
    (key,) = finished.list("report/data/000000")
    finished.delete(key)
    left = ray_ns("verify", finished.url)
    assert left.code == 4
    assert f"{key} in {finished.url} is missing" in one_line(left.err.splitlines(keepends=True)[-1])


def test_looking_at_a_run_writes_nothing(ray_ns: Call, finished: LocalStore) -> None:
    before = {key: finished.get(key) for key in finished.list("")}
    for verb in ("status", "verify", "gc"):
        assert ray_ns(verb, finished.url).code == 0
    assert {key: finished.get(key) for key in finished.list("")} == before


@pytest.mark.parametrize(("error", "code"), [(InputError, 2), (ResumableError, 3), (IntegrityError, 4)])
def test_every_error_of_ours_is_one_line_and_its_exit_code(
    ray_ns: Call, monkeypatch: pytest.MonkeyPatch, error: type[RayNsError], code: int
) -> None:
    def fail(*_: object) -> None:
        raise error("what, where, the mend")

    monkeypatch.setattr("ray_ns.store.status.read_status", fail)
    assert ray_ns("status", "x") == Left(code, "", "ray-ns: what, where, the mend\n")


def test_a_full_disk_is_one_line_and_no_traceback(
    ray_ns: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("ray_ns.store.status.read_status", lambda url, _: LocalStore(url).put("k", b"x"))
    monkeypatch.setattr(os, "fsync", full)
    left = ray_ns("status", tmp_path)
    assert left.code == 3
    assert "No space left on device" in one_line(left.err)


def test_inspect_counts_a_corpus_and_draws_a_sheet(
    ray_ns: Call, tmp_path: Path, write_corpus: Callable[..., Any], pictures: Callable[..., list[bytes]]
) -> None:
    corpus = write_corpus("labelled", [[*pictures(5), b""]], [[0, 1, 2, 0, 1, 2]])
    done = ray_ns("inspect", corpus.root, "--labelled", "--sheet", tmp_path / "sheet.png", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["images"] == 6
    assert found["per_class"] == [[0, 2], [1, 2], [2, 2]]
    assert found["first_unreadable"] == {"empty": [f"{corpus.root}/00000.parquet row 5"]}
    assert (tmp_path / "sheet.png").stat().st_size > 1000
    assert ray_ns("inspect", tmp_path / "nothing").code == InputError.exit_code


def test_check_of_what_cannot_run_leaves_with_2(ray_ns: Call, tmp_path: Path) -> None:
    left = ray_ns("check", str(tmp_path / "none.yaml"))
    assert left.code == 2
    assert "cannot be read" in one_line(left.err)
