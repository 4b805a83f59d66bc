"""How a network scored on the validation and test images."""

from dataclasses import dataclass

from ray_ns.store.commit import Commit


@dataclass(frozen=True)
class Scores:
    """What ``evaluate`` commits."""

    commit: Commit

    @property
    def digest(self) -> str:
        """The commit's digest."""
        return self.commit.digest

    def top1(self, corpus: str) -> float:
        """Share of right answers, 0..1, on ``validation`` or ``test``."""
        return float(self.commit.summary[corpus]["top1"])
