"""What a stage of a run is. Each has a file of its own here, and one line in ``stages.TURN``."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from ray_ns.config import Config
from ray_ns.store.commit import Commit, Output, Part

if TYPE_CHECKING:
    from ray_ns.engine.bench import Bench, Finding
    from ray_ns.engine.run import Run

A = TypeVar("A")


@dataclass(frozen=True)
class Done:
    """What a stage's work comes to: the commit's summary (JSON values), and its parts or how many are published.

    ``told``: the outcome in a few words, for the progress line. ``then`` is called with the commit that was made.
    """

    summary: Mapping[str, Any]
    parts: int | Sequence[Part]
    told: str = ""
    then: Callable[[Commit], None] | None = None


class Stage(ABC, Generic[A]):
    """One stage: a frozen dataclass whose fields are the artifacts it is made from. ``Run.ensure`` carries it out.

    ``name``: its folder in a turn, its row in ``status``, its choice of ``--until``, its seconds in the table.
    ``within``: names of the small stages in its folder that others may ask for.
    """

    name: ClassVar[str]
    within: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def inputs(self, run: "Run") -> dict[str, Any]:
        """All that the output depends on, as JSON values; upstream artifacts by digest."""

    @abstractmethod
    def work(self, run: "Run", output: Output) -> Done:
        """Make the output; what ``output.done()`` holds already is not made again."""

    @abstractmethod
    def artifact(self, run: "Run", commit: Commit) -> A:
        """What the commit is for whoever builds on it. Called each time, whether the work was done now or before."""

    @classmethod
    def in_round(cls, config: Config) -> bool:
        """Whether the rounds of such a run have this stage."""
        return True

    @classmethod
    def probe(cls, bench: "Bench", turn: int) -> "Iterator[Finding]":
        """One step of the stage in this process, with nothing written, as ``check`` shows it for turn 0 and turn 1."""
        yield from ()
