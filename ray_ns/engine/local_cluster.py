"""A Ray cluster of this process alone: closed to all others, and without what a run never asks of Ray.

Whoever reaches a Ray cluster can run code as its user and read its environment. So each of its processes listens on
loopback only, and answers nobody without a token that only they know.

``ray.init`` starts an autoscaler, a monitor of log files and an API server beside every local cluster, and no setting
of it leaves them out; ``ray_private.lean_start`` does.
"""

import logging
import os
import secrets
from pathlib import Path
from typing import Any

from ray_ns.engine import ray_private, reaper
from ray_ns.errors import InputError

# Ray 2.60: a finished training asks the dashboard of whatever cluster answers on port 8265 whether its controller
# lives, and tears healthy workers down where that is another cluster; an address nobody listens on makes it harmless.
ENVIRONMENT = {
    "RAY_API_SERVER_ADDRESS": "http://127.0.0.1:9",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # glibc gives each thread a heap of its own, and such a heap returns its memory whatever ``keep_memory`` asked for:
    # a teacher called in one of Ray's threads lost an eighth of its time to page faults.
    "MALLOC_ARENA_MAX": "1",
    # Threads of OpenMP wait for one another in a loop that keeps a CPU, on a busy machine that of the one waited for:
    # 8 training steps a second with this, none in 90 seconds without.
    "OMP_WAIT_POLICY": "PASSIVE",
    # Ray's C++ side writes to the driver's terminal what it also handles; Python logs stay as they are.
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}
# Never as the user has it.
CLOSED = {
    **ray_private.LISTEN_ON_LOOPBACK,
    "RAY_AUTH_MODE": "token",
    "GLOO_SOCKET_IFNAME": "lo",
    "NCCL_SOCKET_IFNAME": "lo",
}
# The longest path that Ray makes below its folder, and the most bytes that Linux takes for a socket's.
SOCKET = "/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
SOCKET_BYTES = 107
_watching: list[Any] = []  # held until this process ends, which is what each of them waits for


def folder() -> Path:
    """Where Ray keeps the sockets and the logs of a local cluster: below RAY_TMPDIR, TMPDIR or /tmp."""
    return Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp") / "ray"  # noqa: S108 - as Ray does


def check_folder() -> None:
    """Raise ``InputError`` where Ray could not start in its ``folder``: it is too long a path, or another user's."""
    place = folder()
    longest = len(os.fsencode(place)) + len(SOCKET)
    if longest > SOCKET_BYTES:
        raise InputError(
            f"{place}: too long by {longest - SOCKET_BYTES} bytes for the sockets that Ray makes there. Set RAY_TMPDIR "
            f"to a shorter folder, such as RAY_TMPDIR=/tmp."
        )
    there = next(it for it in (place, *place.parents) if it.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise InputError(
            f"{place}: {there} cannot be written by this user, and Ray keeps its sockets and logs there. Set "
            f"RAY_TMPDIR to a folder of your own."
        )


def start(cpus: int, gpus: int | None, object_store_mb: int) -> None:
    """Start it and connect to it; ``gpus`` None: all there are. What of ``ENVIRONMENT`` is set already stays."""
    os.environ.update({name: value for name, value in ENVIRONMENT.items() if name not in os.environ})
    os.environ.update(CLOSED, RAY_AUTH_TOKEN=secrets.token_hex(32))
    import ray

    ray_private.close_imported()
    ray_private.forget_token()
    with ray_private.lean_start():
        ray.init(
            address="local",
            num_cpus=cpus,
            num_gpus=gpus,
            object_store_memory=object_store_mb * 2**20,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    _watching.append(reaper.watch(ray_private.session_folder()))
