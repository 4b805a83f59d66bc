"""A network that labels, alone or as one of several."""

from dataclasses import dataclass

from ray_ns.artifacts.network import Network
from ray_ns.models.voting import ALONE, Voting


@dataclass(frozen=True)
class Member:
    """``voting``: how probabilities come of it."""

    network: Network
    voting: Voting = ALONE
