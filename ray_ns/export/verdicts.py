"""How the networks of a run compare on the same images, and what that allows to say: beside every gain."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray_ns.artifacts.scores import Scores, right
from ray_ns.config import Method
from ray_ns.errors import IntegrityError
from ray_ns.evaluate.verdict import WANTED, Verdict, unpaired, verdict
from ray_ns.methods.outcome import ONE_STUDENT, is_control, nearest
from ray_ns.store.commit import find_commit
from ray_ns.store.objects import ObjectStore


@dataclass(frozen=True)
class Judged:
    """The network of one turn ``against`` that of another (folders in the run), on the images of ``corpus``.

    ``more``: where nobody can tell, what it takes to see ``evaluate.verdict.WANTED``; empty where it is not known.
    """

    network: str
    against: str
    corpus: str
    verdict: Verdict
    more: str = ""

    @property
    def in_words(self) -> str:
        """``+3.0 points on 100 images (...): cannot tell, ...; sort 941 more test images to see 2 points``."""
        return self.verdict.in_words + (f"; {self.more} to see {WANTED:g} points" if self.more else "")

    def as_json(self) -> dict[str, Any]:
        """Points of top-1, -100..100; ``low`` and ``high`` are the 95 % interval."""
        return {
            "network": self.network,
            "against": self.against,
            "corpus": self.corpus,
            **vars(self.verdict),
            "visible": round(self.verdict.visible, 6),
            "verdict": self.verdict.word,
            **({"more": self.more} if self.more else {}),
        }


def verdicts(store: ObjectStore, rows: Sequence[Mapping[str, Any]], method: Method = "noisy_student") -> list[Judged]:
    """Of the ``rows`` of a run's report. The best student on test, against the teacher and the controls.

    Where the teacher is kept: the student that came nearest, on validation, which chose, and on test; by a ``method``
    with one student that one against the controls too. Nothing is said of images that a run does not have.
    """
    (best,) = (row["round"] for row in rows if row["best"])
    teacher, *others = (row["round"] for row in rows)
    student, controls = nearest(rows), [*filter(is_control, others)]
    if best != teacher:
        asked = [(best, other, "test") for other in (teacher, *controls)]
    elif student is None:
        asked = []
    else:
        one = student["round"]
        asked = [(one, teacher, "validation"), (one, teacher, "test")]
        asked += [(one, other, "test") for other in controls if method in ONE_STUDENT]
    found = ((*it, of_turns(store, *it)) for it in asked)
    return [Judged(one, other, corpus, said) for one, other, corpus, said in found if said is not None]


def of_turns(store: ObjectStore, one: str, other: str, corpus: str = "test") -> Verdict | None:
    """Of the network of one turn against that of another: all of a run are scored on the same images, in one order.

    None where there are no such images.
    """
    first, second = _scores(store, one), _scores(store, other)
    shares = first.top1(corpus), second.top1(corpus)
    if shares[0] is None or shares[1] is None:
        return None
    predicted, predicted_too = (it.predictions(corpus) for it in (first, second))
    if predicted is None or predicted_too is None:  # a run of format 1 or 2 has kept none
        return unpaired(shares[0], shares[1], first.images(corpus))
    return verdict(right(predicted), right(predicted_too))


def _scores(store: ObjectStore, turn: str) -> Scores:
    commit = find_commit(store, f"{turn}/evaluate")
    if commit is None:
        raise IntegrityError(f"{store.url}: {turn}/evaluate has no commit. See 'ray-ns verify {store.url}'.")
    return Scores(commit, store)
