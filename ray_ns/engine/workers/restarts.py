"""What Ray Train's controller tells of a training: its workers failed, and are started again while it may be."""

from typing import Any

import ray.train

from ray_ns import measures
from ray_ns.engine import metrics


class Restarts(ray.train.UserCallback):
    """Counts, in the controller, each failure of the workers of ``stage``; a machine that is taken away is one too."""

    def __init__(self, stage: str) -> None:
        self._stage = stage

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        metrics.in_worker(self._stage)
        measures.count("ns_retries", what="training")
