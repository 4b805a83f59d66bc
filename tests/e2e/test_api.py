"""The package from Python, in a process that nobody but the caller owns: as in a notebook."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from support.tiny_run import Finished, digests, ray_ns

from ray_ns import load_labels

pytestmark = pytest.mark.ray

# Ctrl-C as the notebook's button sends it: SIGINT in the middle of a training; then the same call again, twice.
INTERRUPTED = """
import json, os, signal, sys, threading, time
import ray_ns

config, folder = sys.argv[1:]


def interrupt():
    while not os.path.exists(f"{folder}/rounds/1/train/progress.json"):
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGINT)


before = signal.getsignal(signal.SIGTERM)
threading.Thread(target=interrupt, daemon=True).start()
try:
    ray_ns.run(config, run={"dir": folder})
except KeyboardInterrupt:
    print("interrupted", flush=True)
result = ray_ns.run(config, run={"dir": folder})
again = ray_ns.run(config, run={"dir": folder})
now = [signal.getsignal(signal.SIGINT) is signal.default_int_handler, signal.getsignal(signal.SIGTERM) is before]
print(json.dumps({"rounds": result.rounds, "again": again.report == result.report, "handlers": now}))
"""


def python(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=560)


def test_an_interrupted_cell_gives_the_run_back_and_the_same_call_goes_on(finished: Finished, tmp_path: Path) -> None:
    done = python(INTERRUPTED, str(finished.config), str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr[-3000:]
    first, last = done.stdout.splitlines()
    assert first == "interrupted"
    found = json.loads(last)
    assert found["rounds"] == finished.report["rounds"]
    assert found["again"]
    assert found["handlers"] == [True, True]
    assert digests(tmp_path / "run") == digests(finished.run)
    assert "rounds/1/train: " in done.stderr  # progress is printed where nobody asked for a terminal


def test_a_process_that_uses_ray_already_is_told_so(finished: Finished, tmp_path: Path) -> None:
    code = (
        "import ray, sys, ray_ns\n"
        "from ray_ns.errors import InputError\n"
        "ray.init(address='local', num_cpus=1, include_dashboard=False, object_store_memory=2**27)\n"
        "try:\n    ray_ns.run(sys.argv[1], run={'dir': sys.argv[2]})\n"
        "except InputError as error:\n    print(error)\n"
    )
    done = python(code, str(finished.config), str(tmp_path / "run"))
    assert "ray.shutdown()" in done.stdout
    assert not os.path.exists(tmp_path / "run")


def test_labels_from_python_are_those_of_the_verb(finished: Finished, tmp_path: Path) -> None:
    ray_ns("labels", str(finished.run), "-o", str(tmp_path / "labels.parquet"))
    assert load_labels(finished.run).to_pylist() == pq.read_table(tmp_path / "labels.parquet").to_pylist()
    kept = load_labels(finished.run, minimum=0.9, selected=True)
    assert 0 < len(kept) < len(load_labels(finished.run))
    assert min(kept["confidence"].to_pylist()) >= 0.9
    assert set(kept["selected"].to_pylist()) == {True}
