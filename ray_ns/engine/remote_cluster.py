"""A Ray cluster that outlives this process: the settings that a run needs there, and how it is joined.

Ray reads some of them in the driver and some in the workers. What the user has set, in the environment or by way of
``ray job submit --runtime-env-json``, stays: a job's driver has the variables of its job in its own environment.
"""

import contextlib
import logging
import os
import select
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from ray_ns.engine import ray_private
from ray_ns.engine.local_cluster import ENVIRONMENT
from ray_ns.errors import InputError
from ray_ns.exits import is_program
from ray_ns.printed import tell_failure

RUN = "RAY_NS_RUN"  # in the environment of workers: the id of the run that they work for
# Read in the driver, and handed on by Ray where workers need them.
OF_DRIVER = {
    # Workers would each go to a folder of the training's, where no relative path means what it meant before.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # Without it Ray keeps no records of trainings, which its API lists (GET /api/train/v2/runs/v1).
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "1",
    "RAY_DATA_DISABLE_PROGRESS_BARS": ENVIRONMENT["RAY_DATA_DISABLE_PROGRESS_BARS"],
    "RAY_BACKEND_LOG_LEVEL": ENVIRONMENT["RAY_BACKEND_LOG_LEVEL"],
    # A job's variables and ours are put together; else one name in both ends the start, even with one value.
    "RAY_OVERRIDE_JOB_RUNTIME_ENV": "1",
}
OF_WORKERS = {name: ENVIRONMENT[name] for name in ("MALLOC_ARENA_MAX", "OMP_WAIT_POLICY")}
START_SECONDS = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"  # Ray gives a node that is starting 60 s
JOIN_SECONDS = 120.0  # Ray has shorter bounds of its own for each step; this one is for those without
LEAVE_SECONDS = 2.0  # for the usual way to end at a signal, which Ray's C++ side can hold up
Stop = Callable[[int, object], None]


def join(address: str, loopback: bool, run_id: str, timeout_seconds: float, stop: Stop) -> None:
    """Connect to the cluster at ``address``, which answers. Raises ``InputError`` where it cannot be joined.

    ``loopback``: its nodes listen on this machine's loopback alone; ``timeout_seconds``: how long training workers may
    take to start; ``stop``: what ends the program at a signal, however busy Ray is.
    """
    for name, value in {**OF_DRIVER, START_SECONDS: str(int(timeout_seconds))}.items():
        os.environ.setdefault(name, value)
    if loopback:
        for name, value in ray_private.LISTEN_ON_LOOPBACK.items():
            os.environ.setdefault(name, value)
    import ray

    if loopback:
        ray_private.close_imported()
    try:
        with _obeyed(stop, address), ray_private.quiet_connect():
            ray.init(
                address=address,
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env={"env_vars": of_workers(os.environ, run_id)},
            )
    except Exception as error:
        raise InputError(refused(address, str(error) or type(error).__name__)) from error


def of_workers(mine: Mapping[str, str], run_id: str) -> dict[str, str]:
    """The environment of the run's workers. ``mine``: this process's, whose values of the same names they get."""
    return {name: mine.get(name, value) for name, value in OF_WORKERS.items()} | {RUN: run_id}


def refused(address: str, words: str) -> str:
    """Why the cluster cannot be joined, and what mends it. ``words``: what Ray says of it."""
    said = " ".join(words.split())
    mend = "Run it on a node of the cluster: as a job, with 'ray job submit -- ray-ns ...'"
    if "version mismatch" in said.lower():
        mend = "Use the cluster's versions of Ray and Python here"
    elif "runtime" in said.lower() and "env" in said.lower():
        mend = "Mend the runtime environment of the job"
    return f"cluster.address = {address}: cannot be joined ({said[:400]}). {mend}."


def grows() -> bool:
    """Whether an autoscaler may bring nodes: KubeRay's or that of ``ray up``, as it shows on the head, where jobs run.

    Ray itself tells of none, and starts the same processes where there is none.
    """
    kuberays = "--no-monitor" in os.environ.get("KUBERAY_GEN_RAY_START_CMD", "")  # its own container does it
    return kuberays or Path("~/ray_bootstrap_config.yaml").expanduser().exists()


@contextlib.contextmanager
def _obeyed(stop: Stop, address: str) -> Iterator[None]:
    """While the block runs, a signal ends the program within seconds, and so does ``JOIN_SECONDS``.

    Python runs a handler only when the main thread is back from C++ code, and Ray's may wait there for minutes. The
    number of a signal is in the pipe at once.
    """
    if not is_program() or threading.current_thread() is not threading.main_thread():
        yield
        return
    out, into = os.pipe()
    os.set_blocking(into, False)
    done = threading.Event()

    def watch() -> None:
        came, _, _ = select.select([out], [], [], JOIN_SECONDS)
        if not came:
            ray_private.speak()
            tell_failure(refused(address, f"no end of it in {JOIN_SECONDS:.0f} s"), InputError.exit_code)
            os._exit(InputError.exit_code)
        numbers = [it for it in os.read(out, 64) if it in {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}]
        if numbers and not done.wait(LEAVE_SECONDS):
            ray_private.speak()
            stop(numbers[0], None)

    before = signal.set_wakeup_fd(into, warn_on_full_buffer=False)
    thread = threading.Thread(target=watch, name="signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        signal.set_wakeup_fd(before)
        os.write(into, b"\0")
        thread.join()
        os.close(out)
        os.close(into)
