"""How the networks of a run compare on the same images, and what that allows to say: beside every gain."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray_ns.artifacts.scores import Scores, right
from ray_ns.errors import IntegrityError
from ray_ns.evaluate.verdict import Verdict, unpaired, verdict
from ray_ns.methods.outcome import is_control
from ray_ns.store.commit import find_commit
from ray_ns.store.objects import ObjectStore


@dataclass(frozen=True)
class Judged:
    """The network of one turn ``against`` that of another (folders in the run), on the images of ``corpus``."""

    network: str
    against: str
    corpus: str
    verdict: Verdict

    def as_json(self) -> dict[str, Any]:
        """Points of top-1, -100..100; ``low`` and ``high`` are the 95 % interval."""
        return {
            "network": self.network,
            "against": self.against,
            "corpus": self.corpus,
            **vars(self.verdict),
            "visible": round(self.verdict.visible, 6),
            "verdict": self.verdict.word,
        }


def verdicts(store: ObjectStore, rows: Sequence[Mapping[str, Any]]) -> list[Judged]:
    """Of the ``rows`` of a run's report. The best student on test, against the teacher and the control.

    Where the teacher is kept: the student that came nearest, on validation, which chose, and on test.
    """
    (best,) = (row["round"] for row in rows if row["best"])
    teacher, *others = (row["round"] for row in rows)
    students = [row for row in rows[1:] if not is_control(row["round"])]
    asked = [(best, other, "test") for other in (teacher, *filter(is_control, others))]
    if best == teacher:
        nearest = max(students, key=lambda row: row["validation_top1"], default=None)
        asked = [(nearest["round"], teacher, name) for name in ("validation", "test")] if nearest else []
    return [Judged(one, other, corpus, of_turns(store, one, other, corpus)) for one, other, corpus in asked]


def of_turns(store: ObjectStore, one: str, other: str, corpus: str = "test") -> Verdict:
    """Of the network of one turn against that of another: all of a run are scored on the same images, in one order."""
    first, second = _scores(store, one), _scores(store, other)
    predicted, predicted_too = (it.predictions(store, corpus) for it in (first, second))
    if predicted is None or predicted_too is None:  # a run of format 1 or 2 has kept none
        return unpaired(first.top1(corpus), second.top1(corpus), first.images(corpus))
    return verdict(right(predicted), right(predicted_too))


def _scores(store: ObjectStore, turn: str) -> Scores:
    commit = find_commit(store, f"{turn}/evaluate")
    if commit is None:
        raise IntegrityError(f"{store.url}: {turn}/evaluate has no commit. See 'ray-ns verify {store.url}'.")
    return Scores(commit)
