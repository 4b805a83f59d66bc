"""Tasks of ``engine.fanout`` in this process, the last one first: what a test gives a ``Run`` in place of Ray."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any


class InProcess:
    """``engine.fanout.Tasks`` without Ray: each task when its result is asked for, from the last item to the first."""

    cpus = 2

    def __init__(self, run: Any = None) -> None:
        pass

    def start(self, ready: Callable[[], Any], tasks: int) -> None:
        pass

    def map(self, task: Callable[..., Any], items: Sequence[Any], *shared: Any) -> Iterator[tuple[int, Any]]:
        for number in reversed(range(len(items))):
            yield number, task(items[number], *shared)

    def combine(
        self, task: Callable[..., Any], items: Sequence[Any], combined: Callable[..., tuple[Any, Any]]
    ) -> tuple[Any, Any]:
        return combined(*map(task, items))

    def dismiss(self) -> None:
        pass
