"""A stage as somebody would add one: it adds up two numbers."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ray_ns.engine.bench import Bench, Finding
from ray_ns.engine.run import Run
from ray_ns.engine.stages.stage import Done, Stage
from ray_ns.store.commit import Commit, Output

worked = 0


@dataclass(frozen=True)
class Toy(Stage[int]):
    """Its upstream number and the recipes of the run, added up."""

    upstream: int

    name = "toy"

    def inputs(self, run: Run) -> dict[str, Any]:
        return {"upstream": self.upstream}

    def work(self, run: Run, output: Output) -> Done:
        global worked
        worked += 1
        total = self.upstream + len(run.config.recipes())
        output.publish(0, {"sum.txt": str(total).encode()}, {})
        return Done({"sum": total}, 1)

    def artifact(self, run: Run, commit: Commit) -> int:
        return int(commit.summary["sum"])

    @classmethod
    def probe(cls, bench: Bench, turn: int) -> Iterator[Finding]:
        if turn == 1:
            recipes = len(bench.config.recipes())
            yield Finding(cls.name, f"{recipes} recipes would be counted", {"recipes": recipes})
