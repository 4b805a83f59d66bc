"""A run on a cluster of its own: no door of it is open to others, and its streams hold what they promise."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.listeners import doors_of, open_doors, tree
from support.tiny_run import write_tiny

pytestmark = pytest.mark.ray

# What another process asks, without the token: who is in the cluster, over the same port as ray.init.
ASK = """
import sys
from ray_ns.engine.ray_private import node_addresses
print(node_addresses(sys.argv[1], 10))
"""


def test_nobody_reaches_a_run_and_its_streams_are_json_alone(tmp_path: Path) -> None:
    config = write_tiny(tmp_path)
    command = [str(Path(sys.executable).with_name("ray-ns")), "run", str(config), "--json"]
    command += [
        "cluster.cpus=4",
        "cluster.train_workers=2",
        "cluster.bn_group=2",
        "cluster.train_loaders=1",
        "--until=label",
    ]
    env = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    found: set[str] = set()
    most, answer = 0, None
    with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:
        running = subprocess.Popen(command, stdout=out, stderr=err, env=env)
        while running.poll() is None:
            found |= open_doors(running.pid)
            most = max(most, doors_of(running.pid))
            for words in map(words_of, tree(running.pid)):
                if answer is None and (gcs := [it for it in words if it.startswith("--gcs-address=")]):
                    asked = [sys.executable, "-c", ASK, gcs[0].partition("=")[2]]
                    answer = subprocess.run(asked, capture_output=True, text=True, env=env, timeout=60)
            time.sleep(0.3)
    assert running.returncode == 0, (tmp_path / "err").read_text()[-3000:]
    assert not found
    assert most > 5  # those of Ray were seen
    assert answer is not None
    assert answer.returncode
    assert "AuthenticationError" in answer.stderr
    for name in ("out", "err"):
        for line in (tmp_path / name).read_text().splitlines():
            json.loads(line)


def words_of(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return []
