"""The number of loaders of a training worker."""

from typing import Any

import pytest

from ray_ns.config import Cluster


@pytest.mark.parametrize(
    ("loaders", "gpus", "cpus", "wanted"),
    [("auto", 0, 8, 0), ("auto", 1, 8, 7), ("auto", 1, 1, 1), ("auto", 1, 128, 16), (0, 1, 8, 0), (3, 0, 8, 3)],
)
def test_a_gpu_worker_has_the_loaders_its_machine_can_run(loaders: Any, gpus: int, cpus: int, wanted: int) -> None:
    assert Cluster(train_loaders=loaders, train_gpus=gpus).loaders(cpus) == wanted
