"""Names of Ray that it makes no promise about: all of them in this file, and nowhere else.

Each has a function here that says what the name is, why it is needed and which public thing would replace it.
``pyproject.toml`` caps Ray below the first minor version that they were not tried with. To try a newer one, install it
and run ``tests/unit/engine/test_ray_private.py``: it names whatever is gone and says what to do. Then raise the cap.
"""

import contextlib
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

from ray_ns.printed import tell

# Ray's name for "nodes may be reached from other machines"; with 0 a node listens on loopback, on Linux too. Its
# documentation speaks of Windows and macOS alone. Replaced by: an address to listen on, as a setting of ``ray.init``.
LISTEN_ON_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
# Methods of Ray's ``Node`` that start an autoscaler, a monitor of log files and an API server beside a local cluster.
# Replaced by: settings of ``ray.init`` (``include_dashboard=False`` still starts the API server).
LEFT_OUT = ("start_monitor", "start_log_monitor", "start_api_server")
LOOK_SECONDS = 0.02
READY_SECONDS = 10.0
_taken: list[int] = []  # the standard error, while what is written to it is looked through


def running_cluster() -> str:
    """The address of the cluster that runs on this machine, as ``ray.init("auto")`` finds it.

    Why: it is asked whether it is closed before anything joins it. Raises ``ConnectionError`` where there is none, or
    more than one. Replaced by: a public function that finds a cluster without joining it.
    """
    from ray._private.services import canonicalize_bootstrap_address_or_die

    return str(canonicalize_bootstrap_address_or_die("auto"))


def node_addresses(cluster: str, seconds: float) -> list[str]:
    """The addresses of a cluster's nodes, sorted, asked without joining it. Raises Ray's errors, of many kinds.

    Why: whoever joins runs processes of its own and must have the cluster's token; this asks what one without it can
    learn. Replaced by: a public client of a cluster's head (``ray.util.state`` asks the dashboard, which may not run).
    """
    nodes = _head(cluster).get_all_node_info(timeout=seconds)
    return sorted({it.node_manager_address for it in nodes.values()})


def close_imported() -> None:
    """Have Ray heed ``LISTEN_ON_LOOPBACK`` and the token's mode even where it was imported before they were set.

    Why: both are read from the environment once, at the first import. Replaced by: arguments of ``ray.init``.
    """
    from ray._private import ray_constants
    from ray._raylet import Config  # type: ignore[attr-defined]

    ray_constants.ENABLE_RAY_CLUSTER = False
    Config.initialize("")


def forget_token() -> None:
    """Have Ray read RAY_AUTH_TOKEN anew. It keeps the first one of the process, and a second cluster has another.

    Why: two runs in one notebook. Replaced by: a token as a setting of ``ray.init``.
    """
    from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]

    AuthenticationTokenLoader.instance().reset_cache()


def session_folder() -> str:
    """Where Ray keeps what belongs to the cluster this process is connected to; its logs are in ``logs``.

    Why: an error names the logs, and the watcher of orphans removes the folder. Replaced by: a field of
    ``ray.get_runtime_context()``.
    """
    from ray._private import worker

    return str(worker._global_node.get_session_dir_path())


def quiet_libraries() -> None:
    """Let Ray Data and Ray Train write errors alone to the terminal; their log files keep everything.

    Why: the terminal is ours, and with ``--json`` for JSON alone. The loggers' names are documented, that the class of
    a handler to a file has ``File`` in its name is not. Replaced by: a setting of ``DataContext`` and ``RunConfig``.
    """
    for name in ("ray.data", "ray.train"):
        for handler in logging.getLogger(name).handlers:
            if "File" not in type(handler).__name__:
                handler.setLevel(logging.ERROR)


def torch_backend() -> Any:
    """The class by which ``TorchConfig`` sets training workers up.

    Why: a subclass adds what our workers do when they start and before they end. Replaced by: hooks of ``TorchConfig``,
    or the ``Backend`` it uses under a public name.
    """
    from ray.train.torch.config import _TorchBackend

    return _TorchBackend


def trainer() -> Any:
    """``TorchTrainer``, which leaves Ctrl-C to whoever called ``fit``.

    Why: its own handler takes the place of the run's, and ends the process with another exit code. ``fit`` in a thread
    sets none, but cannot be interrupted, and the thread that is left crashes the next cluster of its process. Replaced
    by: a setting of ``TorchTrainer``.
    """
    from ray.train.torch import TorchTrainer

    class Trainer(TorchTrainer):
        def _register_sigint_handler(self, controller: Any) -> None:
            """Nothing: the handler that is there stays."""

    return Trainer


def meet(worker_group: Any, backend: str, seconds: int, place: str) -> None:
    """Let training workers form PyTorch's process group by way of ``place`` (a URL that PyTorch knows).

    Why: ``TorchConfig`` takes ``tcp`` and ``env`` only, whose store of keys listens on every interface. This is what
    ``TorchConfig`` does itself, with another URL. Replaced by: ``TorchConfig(init_method="file://...")``.
    """
    import ray
    from ray.train.torch.config import _set_torch_distributed_env_vars, _setup_torch_process_group

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


def are_well(worker_group: Any) -> bool:
    """Whether no training worker had failed when Ray last looked.

    Why: only workers that are well can be asked to leave; the others are gone. Replaced by: a reason handed to
    ``Backend.on_shutdown``.
    """
    status = worker_group.get_latest_poll_status()
    return status is not None and not status.errors


@contextlib.contextmanager
def lean_start() -> Iterator[None]:
    """While the block runs, a node starts without what is ``LEFT_OUT``, is noticed when it is ready, and says nothing.

    Why: each of the processes left out loads Ray anew: together 1.5 s of CPU and 150 MB at the start of every command.
    A version of Ray that does not know one of these names does there what it always does.
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


@contextlib.contextmanager
def quiet_connect() -> Iterator[None]:
    """While the block runs, ``ray.init`` connects without the line of Ray's C++ side about RAY_BACKEND_LOG_LEVEL.

    Why: it is the first line of every job's log, and says nothing of the run. Replaced by: a way to keep it back.
    """
    from ray._private import worker

    connect = worker.connect
    worker.connect = _unannounced(connect)
    try:
        yield
    finally:
        worker.connect = connect


def speak() -> None:
    """Give the standard error back that ``quiet_connect`` has taken, for a last word from another thread."""
    for errors in _taken:
        os.dup2(errors, 2)


def _nothing(start: Callable[..., None]) -> Callable[..., None]:
    """What is done instead of ``start``."""
    return lambda node, **settings: None


def _when_ready(get_node: Callable[[str, str], Any]) -> Callable[[str, str], Any]:
    """``get_node``, asked when the node is there: what it does not find at once it looks for a second later."""

    def asked(gcs_address: str, node_id: str) -> Any:
        with contextlib.suppress(Exception):
            head, until = _head(gcs_address), time.monotonic() + READY_SECONDS
            while not head.get_all_node_info(timeout=READY_SECONDS) and time.monotonic() < until:
                time.sleep(LOOK_SECONDS)
        return get_node(gcs_address, node_id)

    return asked


def _unannounced(connect: Callable[..., Any]) -> Callable[..., Any]:
    """``connect``, without Ray's line about RAY_BACKEND_LOG_LEVEL, which its C++ side writes before it heeds it."""

    def connected(*arguments: Any, **settings: Any) -> Any:
        sys.stderr.flush()
        errors = os.dup(2)
        _taken.append(errors)
        with tempfile.TemporaryFile() as said:
            os.dup2(said.fileno(), 2)
            try:
                return connect(*arguments, **settings)
            finally:
                sys.stderr.flush()
                os.dup2(errors, 2)
                _taken.remove(errors)
                os.close(errors)
                said.seek(0)
                for line in said:
                    if b"RAY_BACKEND_LOG_LEVEL" not in line:
                        tell(line.decode(errors="replace").rstrip("\n"), "log")

    return connected


def _head(cluster: str) -> Any:
    """Ray's client of a cluster's head."""
    from ray._raylet import GcsClient  # type: ignore[attr-defined]

    return GcsClient(address=cluster)
