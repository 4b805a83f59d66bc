"""Tasks of ``engine.fanout`` in this process, the last one first: what a test gives a ``Run`` in place of Ray."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ray_ns.engine.fanout import Here


class InProcess(Here):
    """``Here`` with each task when its result is asked for, from the last item to the first: any order must do."""

    def __init__(self, run: Any = None) -> None:
        self.cpus = 2

    def start(self, ready: Callable[[], Any], tasks: int) -> None:
        pass

    def map(self, task: Callable[..., Any], items: Sequence[Any], *shared: Any) -> Iterator[tuple[int, Any]]:
        for number in reversed(range(len(items))):
            yield number, task(items[number], *shared)
