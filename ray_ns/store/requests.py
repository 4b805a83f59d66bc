"""Each request to a run directory is counted, by what it asks and how it ends, and timed."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Concatenate, Literal, ParamSpec, TypeVar

from ray_ns import measures

Verb = Literal["get", "put", "list", "delete"]
_P = ParamSpec("_P")
_S = TypeVar("_S")
_T = TypeVar("_T")


@contextmanager
def request(verb: Verb) -> Iterator[None]:
    """The block is one request. It fails where it raises: an object that is not there is an answer."""
    began, outcome = time.perf_counter(), "failed"
    try:
        yield
        outcome = "ok"
    finally:
        measures.count("ns_store_requests", verb=verb, outcome=outcome)
        measures.timed("ns_store_seconds", time.perf_counter() - began, verb=verb)


def as_request(verb: Verb) -> Callable[[Callable[Concatenate[_S, _P], _T]], Callable[Concatenate[_S, _P], _T]]:
    """The same method, each call of which is one request."""

    def counted(method: Callable[Concatenate[_S, _P], _T]) -> Callable[Concatenate[_S, _P], _T]:
        @wraps(method)
        def call(self: _S, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
            with request(verb):
                return method(self, *args, **kwargs)

        return call

    return counted
