"""``driver.sh``: which exit codes KubeRay gets to retry. The real script, beside a ray-ns and a ray that note words."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from support.manifests import CLUSTER

SCRIPT = CLUSTER / "kuberay/base/driver.sh"
JOB = json.dumps({"runtime_env": {}, "metadata": {"job_submission_id": "ray-ns-x7k2p", "job_name": "ray-ns-x7k2p"}})


def program(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def there(tmp_path: Path) -> dict[str, str]:
    """The environment of a driver whose programs note what they were called with; ``sleep`` waits no time."""
    program(tmp_path, "ray", f'echo "$@" >> {tmp_path}/ray.txt; exit "${{RAY_LEAVES:-0}}"')
    program(tmp_path, "sleep", "exit 0")
    program(tmp_path, "ray-ns", f'printf "%s\\n" "$@" > {tmp_path}/words.txt; exit "$LEAVES"')
    return {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "RAY_JOB_CONFIG_JSON_ENV_VAR": JOB,
        "RAY_ADDRESS": "10.0.0.5:6379",
    }


def drive(there: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", SCRIPT, *words], env=there, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("code", [0, 1, 3, 137, 139, 143])
def test_a_code_that_a_retry_may_mend_is_handed_on(there: dict[str, str], tmp_path: Path, code: int) -> None:
    assert drive({**there, "LEAVES": str(code)}, "ray-ns", "run", "x.yaml").returncode == code
    assert not (tmp_path / "ray.txt").exists()


@pytest.mark.parametrize("code", [2, 4])
def test_a_code_that_no_retry_mends_stops_the_job(there: dict[str, str], tmp_path: Path, code: int) -> None:
    done = drive({**there, "LEAVES": str(code)}, "ray-ns", "run", "x.yaml")
    assert done.returncode == code  # where the stop did not end the script, as here
    assert f"exit code {code}" in done.stdout
    said = (tmp_path / "ray.txt").read_text()
    assert said == "job stop --no-wait --address http://127.0.0.1:8265 ray-ns-x7k2p\n"


def test_a_job_that_cannot_be_stopped_fails(there: dict[str, str]) -> None:
    assert drive({**there, "LEAVES": "2", "RAY_LEAVES": "1"}, "ray-ns", "run", "x.yaml").returncode == 2


def test_words_arrive_as_they_are(there: dict[str, str], tmp_path: Path) -> None:
    words = ["run", "x.yaml", "run.dir=s3://b/a run", 'cluster.train_on={"a": "b"}', "$HOME", "*"]
    drive({**there, "LEAVES": "0"}, "ray-ns", *words)
    assert (tmp_path / "words.txt").read_text().splitlines() == words


def test_the_signal_of_a_stop_reaches_the_driver_and_the_script(there: dict[str, str], tmp_path: Path) -> None:
    """As ``ray job stop`` sends it: to each process of the entrypoint, which all have to end."""
    program(
        tmp_path, "ray-ns", f"trap 'echo stopped > {tmp_path}/stopped.txt; exit 3' TERM\necho $$; while :; do :; done"
    )
    process = subprocess.Popen(["bash", SCRIPT, "ray-ns"], env=there, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    driver = int(process.stdout.readline())
    for it in (process.pid, driver):
        os.kill(it, signal.SIGTERM)
    assert process.wait(30) == -signal.SIGTERM
    end = time.monotonic() + 30
    while not (tmp_path / "stopped.txt").exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert (tmp_path / "stopped.txt").read_text() == "stopped\n"
