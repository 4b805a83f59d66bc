"""What a block of a test measures."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ray_ns import measures
from ray_ns.measures import Measure


class Measured:
    """A sink that keeps all: ``values`` in their order."""

    def __init__(self) -> None:
        self.values: list[tuple[str, float, dict[str, str]]] = []

    def __call__(self, measure: Measure, value: float, labels: Mapping[str, str]) -> None:
        self.values.append((measure.name, value, dict(labels)))

    def total(self, name: str, **labels: str) -> float:
        """The sum of what came of that name with at least these labels."""
        return sum(value for found, value, has in self.values if found == name and {**has, **labels} == has)

    def times(self, name: str) -> int:
        """How often that name came."""
        return sum(found == name for found, _, _ in self.values)


@contextmanager
def measured() -> Iterator[Measured]:
    """While the block runs, what this process measures is kept."""
    found = Measured()
    measures.use(found)
    try:
        yield found
    finally:
        measures.use(None)
