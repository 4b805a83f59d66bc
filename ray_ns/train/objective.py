"""What one optimiser step of a method computes: the seam between the methods and the common training loop.

An objective names its networks and where its images come from, and goes forward and back through the networks.
Everything else is common to all objectives and lies in ``step``, ``state`` and ``fit``: seeds, noise, microbatches,
autocast, the agreement of the workers, updates, averages, checkpoints, scores.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from torch import Tensor, nn

from ray_ns.config import Data, Training

if TYPE_CHECKING:
    from ray_ns.train.state import Net, TrainState
    from ray_ns.train.step import Share


@dataclass(frozen=True)
class Source:
    """Images of every step: labelled ones, or those of the selection; ``per_step``: how many, over all workers.

    ``views``: an image comes once for each, noised or not, read for all of them at once.
    """

    images: Literal["labelled", "selection"]
    per_step: int
    views: tuple[bool, ...] = (True,)


@dataclass(frozen=True)
class NetPlan:
    """A network that begins to learn later than the others, or that is none of timm's.

    Up to the step ``delay`` its learning rate is 0; from there on it is as if the training began, with the recipe's
    steps less ``delay``. ``made`` makes it, from how images are read; None: it is the recipe's model.
    """

    recipe: Training
    delay: int = 0
    made: Callable[[Data], nn.Module] | None = None


class Agree(Protocol):
    """The one all-reduce: what the workers found, the same to all of them, before anything is updated."""

    def __call__(self, loss: Tensor, *nets: "Net", **scalars: Tensor) -> Mapping[str, float]:
        """Update ``nets`` by the gradients that lie in them. The means over all workers, the loss under ``loss``.

        Raises ``NotFiniteError`` on all workers, before the update, where a loss, a scalar or a gradient is not finite;
        "loss" and the scalars are this worker's.
        """


class Objective(Protocol):
    """What one step computes for one recipe. ``keeps``: which of its networks is scored, and committed at the end."""

    @property
    def recipe(self) -> Training:
        """How long the training takes, how its images are noised, when it is scored."""

    @property
    def keeps(self) -> str: ...

    def networks(self) -> Mapping[str, Training | NetPlan]:
        """The networks by name, each with the recipe by which it is built, optimised and averaged."""

    def sources(self) -> tuple[Source, ...]:
        """Where the images of a step come from. A batch holds them in this order, of each source view after view."""

    def step(self, state: "TrainState", share: "Share", agree: Agree) -> float:
        """Go forward and back with this worker's ``share`` of the images, let ``agree`` update; the step's loss.

        Every random draw is keyed by (key, step, rank), so a step that is done again is the same. What the objective
        itself remembers from step to step lies in ``state.scalars``; set it to what all workers agree on.
        """
