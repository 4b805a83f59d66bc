"""What FixRes made of a network, and which of the two goes on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ray_ns.artifacts.artifact import Artifact
from ray_ns.artifacts.network import Network

TUNED, CONTROL = "fixres/tuned", "fixres/control"  # in a turn: corrected at the test size, and at the train size


@dataclass(frozen=True)
class Fixed(Artifact):
    """What ``fixres`` commits. ``network``: the one that goes on, the corrected one or the one before it."""

    network: Network

    @property
    def figures(self) -> Mapping[str, Any]:
        """``evaluate.fixed.outcome``, as JSON values."""
        return self.commit.summary
