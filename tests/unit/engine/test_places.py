"""Where a command reads and writes: apart, and in places that outlast it."""

import os
from pathlib import Path

import pytest
from support.tiny_run import write_tiny

from ray_ns.config.read import load, relative
from ray_ns.engine.check import check
from ray_ns.engine.ingest.opening import ingest
from ray_ns.engine.ingest.settings import Ingest
from ray_ns.engine.opening import drive
from ray_ns.engine.places import check_given
from ray_ns.engine.prediction import predict_corpus
from ray_ns.errors import InputError

JOBS_OWN = "session_1/runtime_resources/working_dir_files/_ray_pkg_1234abcd"


@pytest.fixture
def in_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / JOBS_OWN
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


def test_what_is_written_from_the_working_directory_of_a_job_is_refused(in_a_job: Path, tmp_path: Path) -> None:
    tiny = str(write_tiny(tmp_path))
    inside = r"runs/x: inside the working directory of this job, which Ray made on this node alone.*Give a URL"
    with pytest.raises(InputError, match=rf"run\.dir = .*{inside}"), drive(tiny, ["run.dir=runs/x"], "plain"):
        pass
    with pytest.raises(InputError, match=rf"data\.pool = .*{inside}"):
        list(check(tiny, ["pool=runs/x"]))
    with pytest.raises(InputError, match=f"DST = {inside}"):
        ingest(Ingest(str(tmp_path / "data/pool"), "runs/x"), False, "plain")
    with pytest.raises(InputError, match=f"-o = {inside}"):
        predict_corpus(str(tmp_path), str(tmp_path / "data/pool"), "runs/x")
    assert not list(in_a_job.iterdir())


@pytest.mark.parametrize("by", ["setting", "variable"])
def test_a_relative_path_is_refused_where_other_machines_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    tiny, overrides = str(write_tiny(tmp_path)), ["run.dir=runs/x"]
    check_given(tiny, overrides, load(tiny, overrides))  # here alone it is what it always was
    if by == "setting":
        overrides.append("cluster.address=10.0.0.5:6379")
    else:
        monkeypatch.setenv("RAY_ADDRESS", "10.0.0.5:6379")
    with pytest.raises(InputError, match=r"run\.dir = runs/x: a path from the working directory, which is another one"):
        list(check(tiny, overrides))
    check_given(tiny, overrides[1:], load(tiny, overrides[1:]))
    overrides.append("cluster.address=local")
    check_given(tiny, overrides, load(tiny, overrides))


def test_relative_paths_are_those_that_neither_a_root_nor_a_scheme_begins() -> None:
    given = {
        "run": {"dir": "s3://bucket/run"},
        "data": {"labelled": "data/labelled", "pool": "~/pool", "test": "/data/test", "validation": "../validation"},
    }
    assert relative(given, ["run.dir=here"]) == {
        "run.dir": "here",
        "data.labelled": "data/labelled",
        "data.validation": "../validation",
    }
    assert os.sep == "/"
