"""How a network scored on the validation and test images."""

from ray_ns.artifacts.artifact import Artifact


class Scores(Artifact):
    """What ``evaluate`` commits."""

    def top1(self, corpus: str) -> float:
        """Share of right answers, 0..1, on ``validation`` or ``test``."""
        return float(self.commit.summary[corpus]["top1"])
