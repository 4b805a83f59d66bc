"""A Ray cluster of this process alone, on this machine, without those of Ray's processes that a run never asks.

``ray.init`` starts an autoscaler, a monitor of log files and an API server beside every local cluster, and no setting
of it leaves them out. Each loads Ray anew: together 1.5 s of CPU and 150 MB, at the start of every command.
"""

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

# Ray 2.60: a finished training asks the dashboard of whatever cluster answers on port 8265 whether its controller
# lives, and tears healthy workers down where that is another cluster; an address nobody listens on makes it harmless.
ENVIRONMENT = {
    "RAY_API_SERVER_ADDRESS": "http://127.0.0.1:9",
    "RAY_AUTH_MODE": "disabled",
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
    # Ray's C++ side writes to the driver's terminal what it also handles; Python logs stay as they are.
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}
LEFT_OUT = ("start_monitor", "start_log_monitor", "start_api_server")
LOOK_SECONDS = 0.02
READY_SECONDS = 10.0


def start(cpus: int, gpus: int | None, object_store_mb: int) -> None:
    """Start it and connect to it; ``gpus`` None: all there are. What the environment sets already stays as it is."""
    os.environ.update({name: value for name, value in ENVIRONMENT.items() if name not in os.environ})
    import ray

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


@contextlib.contextmanager
def _lean() -> Iterator[None]:
    """While the block runs, a node starts without what is ``LEFT_OUT`` and is noticed as soon as it is ready.

    These are private names of Ray; a version that does not know one of them does there what it always does.
    """
    from ray._private import services
    from ray._private.node import Node

    changes: list[tuple[Any, str, Callable[..., Any]]] = [(Node, name, _nothing) for name in LEFT_OUT]
    changes.append((services, "get_node", _when_ready))
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
