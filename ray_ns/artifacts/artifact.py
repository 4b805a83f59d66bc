"""What every artifact is: a commit, with names for what is in it."""

from dataclasses import dataclass

from ray_ns.store.commit import Commit


@dataclass(frozen=True)
class Artifact:
    """A stage's commit. ``digest`` names it for the stages that build on it."""

    commit: Commit

    @property
    def digest(self) -> str:
        """The commit's digest."""
        return self.commit.digest

    @property
    def place(self) -> str:
        """Its folder in the run."""
        return self.commit.stage
