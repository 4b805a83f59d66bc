"""One driver at a time, stopped politely, and a full disk."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.tiny_run import Finished, digests, ray_ns

pytestmark = pytest.mark.ray


@pytest.fixture
def config(finished: Finished) -> Path:
    return finished.config


def until(evidence: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not evidence():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", str(disk)], check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_second_driver_leaves_and_a_stopped_one_hands_over(config: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [str(Path(sys.executable).with_name("ray-ns")), "run", str(config), f"run.dir={run}"]
    first = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    until((run / "driver/heartbeat.json").exists)
    second = ray_ns("run", str(config), f"run.dir={run}", check=False)
    assert second.returncode == 3
    assert "another driver is at work" in second.stderr
    assert "epoch 1" in ray_ns("status", str(run)).stdout

    until((run / "rounds/0/train/progress.json").exists)
    os.kill(first.pid, signal.SIGTERM)
    assert first.wait(60) == 3
    assert first.stderr is not None
    assert "the same command goes on" in first.stderr.read()
    assert json.loads((run / "driver/heartbeat.json").read_text())["released"]
    ray_ns("run", str(config), f"run.dir={run}", "--until", "label")
    assert (run / "driver/000002.json").exists()
    assert (run / "rounds/1/label/commit.json").exists()
    assert not (run / "rounds/1/select").exists()


def test_a_driver_whose_run_is_deleted_in_mid_training_ends_in_seconds_and_writes_nothing_more(
    finished: Finished, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    command = [str(Path(sys.executable).with_name("ray-ns")), "run", str(finished.config), f"run.dir={run}"]
    first = subprocess.Popen([*command, "run.seed=9", "teacher.steps=100000"], stderr=subprocess.PIPE, text=True)
    until(lambda: any(run.glob("rounds/0/train/checkpoints/*/*.json")))
    run.rename(tmp_path / "deleted")  # at once, whatever is being written
    shutil.rmtree(tmp_path / "deleted")
    began = time.monotonic()
    second = subprocess.Popen([*command, "--until", "label"], stderr=subprocess.DEVNULL)
    assert first.wait(30) == 3
    assert time.monotonic() - began < 5
    assert first.stderr is not None
    last = first.stderr.read().strip().splitlines()[-1]
    assert "is gone" in last or "begun anew" in last
    assert second.wait(200) == 0
    assert not any(run.glob("rounds/0/train/checkpoints/*/*"))
    made = digests(run)
    assert "rounds/1/label" in made
    assert made == {name: commit for name, commit in digests(finished.run).items() if name in made}
    assert ray_ns("verify", str(run)).returncode == 0


def test_a_full_disk_ends_the_run_with_its_path_and_nothing_stored_is_lost(
    config: Path, tmp_path: Path, small_disk: Path
) -> None:
    done = ray_ns("run", str(config), f"run.dir={small_disk}", check=False)
    assert done.returncode == 3
    assert str(small_disk) in done.stderr
    assert "No space left" in done.stderr
    assert ray_ns("verify", str(small_disk)).returncode == 0
