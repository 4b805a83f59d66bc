"""What a run needs of a cluster."""

import pytest

from ray_ns.config import Config
from ray_ns.engine import resources
from ray_ns.errors import InputError


@pytest.mark.parametrize(
    ("changes", "cpus", "gpus", "words"),
    [
        ({"label": {"actors": 1, "threads": 1}}, 2, 0, None),
        ({"label": {"actors": 2, "threads": 1}}, 2, 0, "label.actors x label.threads = 2 x 1"),
        ({"label": {"actors": 2, "threads": 2}}, 5, 0, None),
        ({"label": {"actors": 4, "gpus_per_actor": 0.5}}, 8, 1, "= 2 GPUs, the cluster has 1"),
        ({"label": {"actors": 2, "gpus_per_actor": 0.5}}, 8, 1, None),
        ({"cluster": {"train_workers": 2, "train_threads": 2}}, 3, 0, "cluster.train_workers"),
    ],
)
def test_actors_readers_and_workers_are_counted_against_the_cluster(
    config: Config, changes: dict, cpus: int, gpus: int, words: str | None
) -> None:
    changed = Config.model_validate({**config.model_dump(), **changes})
    if words is None:
        resources.check_resources(changed, cpus, gpus)
    else:
        with pytest.raises(InputError, match=words):
            resources.check_resources(changed, cpus, gpus)


@pytest.mark.parametrize(("side", "expected"), [(0, 256 + 1), (16, 256 + 1), (64, 256 + 7)])
def test_the_object_store_has_room_for_what_a_teacher_that_is_given_sees(
    config: Config, side: int, expected: int
) -> None:
    # 4 CPUs x 7 slices of 64 images of 64 x 64 x 1 bytes are 7 MB.
    label, cluster = ({"layout": "tasks", "slice_rows": 64}, {"cpus": 4})
    values = {**config.model_dump(), "teacher": {"from": "x"}, "label": label, "cluster": cluster}
    assert resources.object_store_mb(Config.model_validate(values), side) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 256),
        ({"cluster": {"object_store_mb": 100}}, 100),
        # 4 CPUs x 7 slices of 64 images of 32 x 32 x 1 bytes are 2 MB.
        ({"cluster": {"cpus": 4}, "label": {"layout": "tasks", "slice_rows": 64}}, 256 + 2),
    ],
)
def test_the_object_store_has_room_for_the_pixels_that_cross_it(config: Config, changes: dict, expected: int) -> None:
    values = config.model_dump()
    values["data"] |= {"size": 32, "channels": 1, "mean": [0.5], "std": [0.5]}
    for name, settings in changes.items():
        values[name] = {**values[name], **settings}
    values["cluster"]["object_store_mb"] = changes.get("cluster", {}).get("object_store_mb")
    assert resources.object_store_mb(Config.model_validate(values)) == expected
