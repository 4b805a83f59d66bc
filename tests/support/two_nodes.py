"""A Ray cluster on this machine whose second node dies with all its processes, or joins, when a file appears."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

SETTINGS = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_API_SERVER_ADDRESS": "http://127.0.0.1:9",
    "RAY_USAGE_STATS_ENABLED": "0",
}


@contextmanager
def two_nodes(marker: Path, env: dict[str, str], second: Literal["dies", "joins"] = "dies") -> Iterator[dict[str, str]]:
    """The environment of a driver on the cluster; Ray's processes have ``env``. At the end ``second`` must be true."""
    cluster = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(marker), second],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **SETTINGS, **env},
    )
    try:
        assert cluster.stdout is not None
        yield {**SETTINGS, "RAY_ADDRESS": cluster.stdout.readline().strip()}
        assert cluster.stdout.readline().strip() == second
    finally:
        cluster.communicate("\n", timeout=60)


SCRIPT = """
import glob, sys, time
from ray.cluster_utils import Cluster

node = dict(num_cpus=2, object_store_memory=100 << 20)
head = dict(node, include_dashboard=False, node_ip_address="127.0.0.1")
cluster = Cluster(initialize_head=True, head_node_args=head)
second = cluster.add_node(**node) if sys.argv[2] == "dies" else None
print(cluster.address, flush=True)
deadline = time.monotonic() + 200
while not glob.glob(sys.argv[1]) and time.monotonic() < deadline:
    time.sleep(0.02)
if second is None:
    cluster.add_node(**node)
else:
    cluster.remove_node(second, allow_graceful=False)
print(sys.argv[2], flush=True)
sys.stdin.readline()
cluster.shutdown()
"""
