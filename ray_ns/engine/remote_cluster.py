"""A Ray cluster that outlives this process: the settings that a run needs there, and how it is joined.

Ray reads some of them in the driver and some in the workers. What the user has set, in the environment or by way of
``ray job submit --runtime-env-json``, stays: a job's driver has the variables of its job in its own environment.
"""

import logging
import os
from collections.abc import Mapping

from ray_ns.engine.local_cluster import ENVIRONMENT

RUN = "RAY_NS_RUN"  # in the environment of workers: the id of the run that they work for
# Read in the driver, and handed on by Ray where workers need them.
OF_DRIVER = {
    # Workers would each go to a folder of the training's, where no relative path means what it meant before.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # Without it the dashboard's tab Train is empty.
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "1",
    "RAY_DATA_DISABLE_PROGRESS_BARS": ENVIRONMENT["RAY_DATA_DISABLE_PROGRESS_BARS"],
    "RAY_BACKEND_LOG_LEVEL": ENVIRONMENT["RAY_BACKEND_LOG_LEVEL"],
    # A job's variables and ours are put together; else one name in both ends the start, even with one value.
    "RAY_OVERRIDE_JOB_RUNTIME_ENV": "1",
}
OF_WORKERS = {name: ENVIRONMENT[name] for name in ("MALLOC_ARENA_MAX", "OMP_WAIT_POLICY")}
START_SECONDS = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"  # Ray gives a node that is starting 60 s


def join(address: str, run_id: str, timeout_seconds: float) -> None:
    """Connect to the cluster at ``address``. ``timeout_seconds``: how long training workers may take to start."""
    for name, value in {**OF_DRIVER, START_SECONDS: str(int(timeout_seconds))}.items():
        os.environ.setdefault(name, value)
    import ray

    ray.init(
        address=address,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": of_workers(os.environ, run_id)},
    )


def of_workers(mine: Mapping[str, str], run_id: str) -> dict[str, str]:
    """The environment of the run's workers. ``mine``: this process's, whose values of the same names they get."""
    return {name: mine.get(name, value) for name, value in OF_WORKERS.items()} | {RUN: run_id}
