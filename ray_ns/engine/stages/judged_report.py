"""The report that ends an evaluation: the figures of every network on every suite, and how they compare."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ray_ns.artifacts.judged import JudgedOn
from ray_ns.engine.judged import STUDENT, Rival
from ray_ns.engine.run import Run
from ray_ns.engine.stages.judge import views_of
from ray_ns.engine.stages.stage import Done, Stage
from ray_ns.evaluate.kinds import KINDS, difference
from ray_ns.evaluate.suites import Suite
from ray_ns.seals import canonical
from ray_ns.store import layout
from ray_ns.store.commit import Commit, Output

REPORT = "evaluation.json"
Row = tuple[Rival, Suite, JudgedOn]


@dataclass(frozen=True)
class JudgedReport(Stage[dict[str, Any]]):
    """The committed report, as JSON values: it is the commit's summary.

    ``rows``: one per network and suite: ``network``, its role; ``turn``, its folder; ``on``, the suite's ``kind`` and
    views; ``figures``. ``differences``: the student's less each other network's ``headline`` figure of each suite, on
    the same images.
    """

    judged: Sequence[Row]

    name = "report"

    def inputs(self, run: Run) -> dict[str, Any]:
        rows = [[rival.role, rival.turn, suite.kind, list(suite.views)] for rival, suite, _ in self.judged]
        return {"stages": [it.digest for _, _, it in self.judged], "rows": rows}

    def work(self, run: Run, output: Output) -> Done:
        rows = [
            {
                **{"network": rival.role, "turn": rival.turn, "corpus": on.commit.summary["corpus"]},
                **{"kind": suite.kind, "views": len(suite.views), "figures": dict(on.figures), "folder": on.place},
            }
            for rival, suite, on in self.judged
        ]
        value = {"rows": rows, "differences": self._differences(run)}
        output.publish(0, {REPORT: canonical(value)}, {})
        return Done(value, 1)

    def artifact(self, run: Run, commit: Commit) -> dict[str, Any]:
        return dict(commit.summary)

    def _differences(self, run: Run) -> list[dict[str, Any]]:
        found = []
        for suite in dict.fromkeys(suite for _, suite, _ in self.judged):
            kind = KINDS[suite.kind]
            of = {rival.role: on for rival, on_suite, on in self.judged if on_suite == suite}
            if STUDENT not in of or len(of) == 1:
                continue
            values = {role: kind.values(views_of(on.tables(run.store))) for role, on in of.items()}
            folder = of[STUDENT].place
            for role in (role for role in of if role != STUDENT):
                against = {"folder": folder, "against": role, "figure": kind.headline}
                exact = run.format >= layout.EXACT
                found.append(against | difference(values[STUDENT], values[role], kind.higher, exact))
        return found
