"""The report that ends a run: its digest stands for everything the run made."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ray_ns.artifacts.report import REPORT
from ray_ns.engine.run import Run
from ray_ns.engine.stages.stage import Done, Stage
from ray_ns.methods.outcome import Outcome
from ray_ns.seals import canonical
from ray_ns.store.commit import Commit, Output


@dataclass(frozen=True)
class Report(Stage[Mapping[str, Any]]):
    """The committed report of a complete run, as JSON values."""

    outcome: Outcome

    name = "report"

    def inputs(self, run: Run) -> dict[str, Any]:
        stages = [digest for it in self.outcome.all for digest in (it.network.digest, it.scores.digest)]
        return {"stages": stages, "report": self.outcome.as_json()}

    def work(self, run: Run, output: Output) -> Done:
        output.publish(0, {REPORT: canonical(self.outcome.as_json())}, {})
        return Done({}, 1)

    def artifact(self, run: Run, commit: Commit) -> Mapping[str, Any]:
        return self.outcome.as_json()
