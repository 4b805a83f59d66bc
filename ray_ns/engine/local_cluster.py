"""A Ray cluster of this process alone: closed to all others, and without what a run never asks of Ray.

Whoever reaches a Ray cluster can run code as its user and read its environment. So each of its processes listens on
loopback only, and answers nobody without a token that only they know.

``ray.init`` starts an autoscaler, a monitor of log files and an API server beside every local cluster, and no setting
of it leaves them out. Each loads Ray anew: together 1.5 s of CPU and 150 MB, at the start of every command.
"""

import contextlib
import logging
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ray_ns.engine import reaper
from ray_ns.errors import InputError
from ray_ns.printed import tell

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
# What workers on a cluster of others need too.
OF_WORKERS = {name: ENVIRONMENT[name] for name in ("OMP_WAIT_POLICY",)}
# Never as the user has it: the first has a node listen on loopback (Ray's own name for it; it is not of Windows alone).
CLOSED = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "token",
    "GLOO_SOCKET_IFNAME": "lo",
    "NCCL_SOCKET_IFNAME": "lo",
}
LEFT_OUT = ("start_monitor", "start_log_monitor", "start_api_server")
# The longest path that Ray makes below its folder, and the most bytes that Linux takes for a socket's.
SOCKET = "/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
SOCKET_BYTES = 107
LOOK_SECONDS = 0.02
READY_SECONDS = 10.0
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
    from ray._private import ray_constants
    from ray._raylet import Config  # type: ignore[attr-defined]

    # Where Ray was imported before, it has read the environment already.
    ray_constants.ENABLE_RAY_CLUSTER = False
    Config.initialize("")
    with _lean():
        ray.init(
            address="local",
            num_cpus=cpus,
            num_gpus=gpus,
            object_store_memory=object_store_mb * 2**20,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    _watching.append(reaper.watch(session_folder()))


def session_folder() -> str:
    """Where Ray keeps what belongs to the cluster this process is connected to; its logs are in ``logs``."""
    from ray._private import worker

    return str(worker._global_node.get_session_dir_path())


def meet(worker_group: Any, backend: str, seconds: int, folder: str) -> None:
    """Let training workers of this machine find one another through a new file in ``folder``, the backend's own way.

    What PyTorch opens for that otherwise, a store of keys, listens on every interface, and no setting closes it.
    """
    import ray
    from ray.train.torch.config import _set_torch_distributed_env_vars, _setup_torch_process_group

    place = f"file://{folder}/{secrets.token_hex(8)}"
    worker_group.execute(_set_torch_distributed_env_vars)
    ray.get(
        [
            worker_group.execute_single_async(
                rank,
                _setup_torch_process_group,
                backend=backend,
                world_rank=rank,
                world_size=len(worker_group),
                init_method=place,
                timeout_s=seconds,
            )
            for rank in range(len(worker_group))
        ]
    )


@contextlib.contextmanager
def _lean() -> Iterator[None]:
    """While the block runs, a node starts without what is ``LEFT_OUT``, is noticed when it is ready, and says nothing.

    These are private names of Ray; a version that does not know one of them does there what it always does.
    """
    from ray._private import services, worker
    from ray._private.node import Node

    changes: list[tuple[Any, str, Callable[..., Any]]] = [(Node, name, _nothing) for name in LEFT_OUT]
    changes += [(services, "get_node", _when_ready), (worker, "connect", _unannounced)]
    with contextlib.ExitStack() as back:
        for owner, name, instead in changes:
            if original := getattr(owner, name, None):
                back.callback(setattr, owner, name, original)
                setattr(owner, name, instead(original))
        yield


def _nothing(start: Callable[..., None]) -> Callable[..., None]:
    """What is done instead of ``start``."""
    return lambda node, **settings: None


def _when_ready(get_node: Callable[[str, str], Any]) -> Callable[[str, str], Any]:
    """``get_node``, asked when the node is there: what it does not find at once it looks for a second later."""

    def asked(gcs_address: str, node_id: str) -> Any:
        from ray._private import services

        with contextlib.suppress(Exception):
            client, until = services.GcsClient(address=gcs_address), time.monotonic() + READY_SECONDS
            while not client.get_all_node_info(timeout=READY_SECONDS) and time.monotonic() < until:
                time.sleep(LOOK_SECONDS)
        return get_node(gcs_address, node_id)

    return asked


def _unannounced(connect: Callable[..., Any]) -> Callable[..., Any]:
    """``connect``, without Ray's line about RAY_BACKEND_LOG_LEVEL, which its C++ side writes before it heeds it."""

    def connected(*arguments: Any, **settings: Any) -> Any:
        sys.stderr.flush()
        errors = os.dup(2)
        with tempfile.TemporaryFile() as said:
            os.dup2(said.fileno(), 2)
            try:
                return connect(*arguments, **settings)
            finally:
                sys.stderr.flush()
                os.dup2(errors, 2)
                os.close(errors)
                said.seek(0)
                for line in said:
                    if b"RAY_BACKEND_LOG_LEVEL" not in line:
                        tell(line.decode(errors="replace").rstrip("\n"), "log")

    return connected
