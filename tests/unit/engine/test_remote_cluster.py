"""On a cluster of others a run has the settings it needs, and what the user has set stays."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ray_ns.config import Cluster, Config
from ray_ns.engine import remote_cluster
from ray_ns.engine.run import Run
from ray_ns.observe import Reporter
from ray_ns.store.lease import Lease
from ray_ns.store.objects import LocalStore


def test_workers_get_the_settings_of_local_clusters_and_the_users_where_there_are_any() -> None:
    ours = {"MALLOC_ARENA_MAX": "1", "OMP_WAIT_POLICY": "PASSIVE", "RAY_NS_RUN": "demo-1"}
    assert remote_cluster.of_workers({"HOME": "/root"}, "demo-1") == ours
    theirs = {"OMP_WAIT_POLICY": "ACTIVE", "RAY_NS_RUN": "of another"}
    assert remote_cluster.of_workers(theirs, "demo-1") == ours | {"OMP_WAIT_POLICY": "ACTIVE"}


def run_at(place: str | Path) -> Run:
    store = LocalStore(place)
    return Run(
        Config.model_construct(_fields_set=set(), cluster=Cluster()), store, {}, (), Lease(store), Reporter("json")
    )


def test_a_run_is_called_by_its_folder_and_no_two_alike() -> None:
    name, other = run_at("/data/runs/demo").id, run_at("/data/others/demo").id
    assert name == run_at("/data/runs/demo/").id
    assert name.startswith("demo-")
    assert other.startswith("demo-")
    assert name != other


@pytest.mark.parametrize("folder", ["x" * 200, "ä b\n{}", "\u202e", " "])
def test_an_id_is_short_and_plain_whatever_the_folder(folder: str) -> None:
    name = run_at(f"/data/{folder}").id
    assert len(name) <= 40
    assert name.isascii()
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")


def test_an_autoscaler_shows_on_the_head(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KUBERAY_GEN_RAY_START_CMD", "ray start --head --block ")
    assert not remote_cluster.grows()
    monkeypatch.setenv("KUBERAY_GEN_RAY_START_CMD", "ray start --head --block --no-monitor ")
    assert remote_cluster.grows()
    monkeypatch.delenv("KUBERAY_GEN_RAY_START_CMD")
    (tmp_path / "ray_bootstrap_config.yaml").touch()
    assert remote_cluster.grows()


CODE = """
import json, os, sys, ray
from ray_ns.engine import remote_cluster
ray.init = lambda **given: print(json.dumps(given["runtime_env"]))
remote_cluster.join("10.0.0.5:6379", False, "demo-1", 77.0, lambda number, frame: None)
names = [*remote_cluster.OF_DRIVER, remote_cluster.START_SECONDS]
print(json.dumps({name: os.environ[name] for name in names}))
"""


def test_the_driver_has_what_ray_train_reads_in_it() -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    env |= {"PYTHONPATH": os.pathsep.join(sys.path), "RAY_DATA_DISABLE_PROGRESS_BARS": "0"}
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, env=env, timeout=120)
    assert done.returncode == 0, done.stderr
    assert '"RAY_NS_RUN": "demo-1"' in done.stdout
    for words in ('TRIAL_DIR": "0"', 'STATE_TRACKING": "1"', 'START_TIMEOUT_S": "77"', 'PROGRESS_BARS": "0"'):
        assert words in done.stdout, words


def test_work_is_called_by_its_run_and_its_stage() -> None:
    run = run_at("/data/runs/demo")
    assert run.named("count") == f"{run.id}-count"
    run.under_way = "rounds/1/select"
    assert run.named("count") == f"{run.id}-rounds-1-select-count"
    assert run.named() == f"{run.id}-rounds-1-select"


STUCK = """
import ctypes, os, sys, ray
from ray_ns.engine import remote_cluster
from ray_ns.exits import guarded

def init(**given):
    print("joining", flush=True)
    lock, libc = ctypes.create_string_buffer(64), ctypes.CDLL(None)
    for _ in range(2):  # the second one waits for ever, in C code that no signal ends
        libc.pthread_mutex_lock(lock)

remote_cluster.JOIN_SECONDS = float(sys.argv[1])
remote_cluster.LEAVE_SECONDS = 0.1
ray.init = init
join = lambda: remote_cluster.join("10.0.0.5:6379", False, "demo-1", 77.0, lambda number, frame: os._exit(100 + number))
sys.exit(guarded(join, []))
"""


@pytest.mark.parametrize(
    ("seconds", "number", "code"), [(60, signal.SIGTERM, 115), (60, signal.SIGINT, 102), (1, 0, 2)]
)
def test_a_cluster_that_hangs_while_it_is_joined_is_left_at_a_signal_and_in_the_end(
    seconds: int, number: int, code: int
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK, str(seconds)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "joining\n"
        if number:
            process.send_signal(number)
        said = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    assert process.returncode in ({code, 3} if number else {code}), said  # 3: it came just before the C code did
    if not number:
        assert "ray-ns: cluster.address = 10.0.0.5:6379: cannot be joined (no end of it in 1 s)." in said
