"""Runs submitted as jobs: stopped and submitted again, two at once, on the dashboard, and no secret left anywhere."""

import json
import re
import time
from pathlib import Path

import pytest
from support.nodes import RUNNING, Nodes
from support.tiny_run import digests, ray_ns, write_tiny

pytestmark = pytest.mark.cluster
SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "planted+aws+secret/0123456789",
    "HF_TOKEN": "hf_plantedplantedplanted",
}
CLUSTER = {"env": SECRETS}
LONGER = ("teacher.steps=3000", "cluster.checkpoint_steps=50")  # a stop takes up to ten seconds on a busy machine


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an undisturbed run, on this machine alone."""
    folder = tmp_path_factory.mktemp("whole")
    ray_ns("run", str(write_tiny(folder)), *LONGER)
    return folder


@pytest.fixture(scope="module")
def run(nodes: Nodes, whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose job was stopped in its first training and submitted again; another job for it came in between."""
    folder = tmp_path_factory.mktemp("jobs")
    run, work = folder / "run", folder / "work"
    work.mkdir()
    (work / "tiny.yaml").write_text((whole / "tiny.yaml").read_text())
    words = ("ray-ns", "run", "tiny.yaml", f"run.dir={run}", *LONGER)
    nodes.submit(*words, working_dir=work, job="first", wait=False)
    wait(nodes, "first", run, "run.json")
    nodes.submit(*words, working_dir=work, job="other", wait=False)
    nodes.ended("other", 200)  # else it is the one that goes on where the first is stopped
    wait(nodes, "first", run, "rounds/0/train/checkpoints/*")
    nodes.run("ray", "job", "stop", "first", env={"RAY_ADDRESS": ""})
    assert not (run / "rounds/0/train/commit.json").exists(), "stopped too late"
    nodes.submit(*words, working_dir=work, job="second")
    return run


def wait(nodes: Nodes, job: str, run: Path, pattern: str) -> None:
    deadline = time.monotonic() + 200
    while not list(run.glob(pattern)):
        assert nodes.job(job)["status"] in RUNNING, log(nodes, job)
        assert time.monotonic() < deadline, log(nodes, job)
        time.sleep(0.2)


def log(nodes: Nodes, job: str) -> str:
    return json.loads(nodes.http(f"/api/jobs/{job}/logs"))["logs"]


def test_a_stopped_job_that_is_submitted_again_commits_what_an_undisturbed_run_does(
    run: Path, whole: Path, nodes: Nodes
) -> None:
    assert nodes.job("first")["status"] == "STOPPED"
    assert digests(run) == digests(whole / "run")


def test_the_second_of_two_jobs_at_once_leaves_by_itself(run: Path, nodes: Nodes) -> None:
    other = nodes.job("other")
    assert (other["status"], other["driver_exit_code"]) == ("FAILED", 3), other
    assert "another" in log(nodes, "other")


def test_the_train_tab_shows_the_run(run: Path, nodes: Nodes) -> None:
    runs = json.loads(nodes.http("/api/train/v2/runs/v1"))["train_runs"]
    stages = [name for name in ("rounds-0-train", "rounds-1-train") for it in runs if name in it["name"]]
    assert set(stages) == {"rounds-0-train", "rounds-1-train"}, [it["name"] for it in runs]
    assert "FINISHED" in {it["status"] for it in runs}


def test_no_secret_is_left_anywhere(run: Path, nodes: Nodes) -> None:
    assert nodes.token is not None
    secrets = {**SECRETS, "RAY_AUTH_TOKEN": nodes.token}
    held = [Path(f"/proc/{node.pid}/environ").read_bytes() for node in nodes.nodes]
    assert all(secret.encode() in environment for secret in secrets.values() for environment in held)
    places = {
        **{str(path): path.read_bytes() for root in (run, nodes.ray_folder, nodes.folder) for path in files_of(root)},
        **{f"log of {job}": log(nodes, job).encode() for job in ("first", "other", "second")},
        **{f"metrics of {node.address}": metrics(nodes, node.address) for node in nodes.nodes},
        **{path: nodes.http(path) for path in ("/api/jobs/", "/api/train/v2/runs/v1", "/api/v0/actors?detail=1")},
        **{path: nodes.http(path) for path in ("/api/v0/workers?detail=1", "/api/v0/tasks?detail=1", "/events")},
        "/api/v0/runtime_envs": nodes.http("/api/v0/runtime_envs"),
    }
    assert len(places) > 50
    assert str(run / "events.jsonl") in places
    found = [
        (name, place) for name, secret in secrets.items() for place, data in places.items() if secret.encode() in data
    ]
    assert found == []


def files_of(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]


def metrics(nodes: Nodes, address: str) -> bytes:
    port = 20000 + int(re.findall(r"\d+", address)[-1])
    text = nodes.http("/metrics", f"http://{address}:{port}", token=False)
    assert b"ray_" in text
    return text
