"""The session's checks and how errors come out of Ray's wrappings."""

import pytest

from ray_ns.config import Config
from ray_ns.engine import run as session
from ray_ns.errors import InputError, IntegrityError


class Wrapped(Exception):
    """As Ray wraps what a task raised: the original in ``cause``."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__("a task failed")
        self.cause = cause


class WorkersFailed(Exception):
    """As Ray Train reports lost workers: one error per rank."""

    def __init__(self, failures: dict[int, BaseException]) -> None:
        super().__init__("training failed")
        self.worker_failures = failures


def chained(error: BaseException) -> BaseException:
    outer = RuntimeError("outer")
    outer.__cause__ = error
    return outer


@pytest.mark.parametrize(
    "wrap", [Wrapped, chained, lambda e: WorkersFailed({1: Wrapped(e)}), lambda e: Wrapped(chained(e))]
)
def test_an_error_of_ours_is_found_inside_rays_wrappings(wrap) -> None:
    inner = IntegrityError("labels.parquet does not match its hash")
    assert session._cause(wrap(inner)) is inner


class Lost(Exception):
    """As Ray tells of a worker that died."""


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (Wrapped(ValueError("shapes differ")), True),
        (WorkersFailed({0: Wrapped(ImportError("no module timm"))}), True),
        (chained(KeyError("weight")), True),
        (Lost("the worker died"), False),
        (WorkersFailed({0: Lost("the node died")}), False),
        (Wrapped(ConnectionError("reset")), False),
        (Wrapped(TimeoutError("slow")), False),
        (Wrapped(OSError(28, "No space left on device")), False),
        (Wrapped(MemoryError()), False),
    ],
)
def test_only_what_would_end_otherwise_is_said_to_go_on(error: BaseException, again: bool) -> None:
    assert session._would_repeat(error) == again


def test_an_error_that_is_not_ours_is_not_taken_for_one() -> None:
    circle = RuntimeError("a")
    circle.__cause__ = chained(circle)
    assert session._cause(circle) is None


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
        session.check_resources(changed, cpus, gpus)
    else:
        with pytest.raises(InputError, match=words):
            session.check_resources(changed, cpus, gpus)


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
    assert session.object_store_mb(Config.model_validate(values)) == expected
