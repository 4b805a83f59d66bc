"""How errors come out of Ray's wrappings."""

import pytest

from ray_ns.engine import failures
from ray_ns.errors import IntegrityError


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


def while_handling(first: BaseException, then: BaseException) -> BaseException:
    then.__context__ = first
    return then


@pytest.mark.parametrize(
    "wrap",
    [
        Wrapped,
        chained,
        lambda e: WorkersFailed({1: Wrapped(e)}),
        lambda e: Wrapped(chained(e)),
        lambda e: while_handling(e, RuntimeError("cleaning up failed too")),
    ],
)
def test_an_error_of_ours_is_found_inside_rays_wrappings(wrap) -> None:
    inner = IntegrityError("labels.parquet does not match its hash")
    assert failures.cause(wrap(inner)) is inner


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
        (while_handling(KeyError("weight"), Lost("the worker died")), False),
    ],
)
def test_only_what_would_end_otherwise_is_said_to_go_on(error: BaseException, again: bool) -> None:
    assert failures.would_repeat(error) == again


def test_an_error_that_is_not_ours_is_not_taken_for_one() -> None:
    circle = RuntimeError("a")
    circle.__cause__ = chained(circle)
    assert failures.cause(circle) is None
