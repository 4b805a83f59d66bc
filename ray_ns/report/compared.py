"""Two or more runs, or the rounds of one, against each other: settings that differ, scores, paired differences."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from ray_ns.artifacts.digests import Digests
from ray_ns.artifacts.report import report_of
from ray_ns.artifacts.scores import Scores, right
from ray_ns.config import Config, Settings, changes
from ray_ns.errors import InputError
from ray_ns.evaluate.verdict import Verdict, unpaired, verdict
from ray_ns.methods.outcome import is_control
from ray_ns.store import layout
from ray_ns.store.commit import find_commit, planned_inputs
from ray_ns.store.fork import open_run
from ray_ns.store.objects import ObjectStore
from ray_ns.store.status import existing


@dataclass(frozen=True)
class _Scored:
    """A row of a run's report, with what was predicted for each test image; None where the run is older."""

    store: ObjectStore
    row: dict[str, Any]
    scores: Scores
    predictions: pa.Table | None

    @cached_property
    def images(self) -> str | None:
        """What stands for the bytes of the test images in their order: a digest of digests, else of their files."""
        digests = find_commit(self.store, "digests")
        if digests is not None:
            return Digests(digests).objects["test"].sha256
        planned = planned_inputs(self.store, f"{self.row['round']}/evaluate") or {}
        return planned.get("corpora")

    @property
    def name(self) -> str:
        return f"{self.store.url}/{self.row['round']}"


def compare(urls: Sequence[str]) -> dict[str, Any]:
    """``runs``: the report's rows; ``settings``: what differs from the first run; ``differences``: of pairs, on test.

    The best network of each run and the control of the first are compared with the best of the first run; where one
    run is given, all its other rounds and its control are. Raises ``InputError`` where a run has not ended.
    """
    stores = [open_run(existing(url)) for url in urls]
    scored = [_scored(store) for store in stores]
    (first,) = (it for it in scored[0] if it.row["best"])
    others = [it for it in scored[0] if it is not first and (len(scored) == 1 or is_control(it.row["round"]))]
    others += [it for of in scored[1:] for it in of if it.row["best"]]
    begun = [_settings(store) for store in stores]
    return {
        "runs": [{"run": of[0].store.url, "rounds": [it.row for it in of]} for of in scored],
        "settings": {it.url: changes(begun[0], now) for it, now in zip(stores[1:], begun[1:], strict=True)},
        "against": first.name,
        "differences": [_difference(it, first) for it in others],
    }


def _settings(store: ObjectStore) -> dict[str, Any]:
    named = Settings.of_run(layout.record(store), Config)
    return named.with_defaults(layout.settings(store) or {}, Config)


def _scored(store: ObjectStore) -> list[_Scored]:
    report = report_of(store)
    if report is None:
        raise InputError(f"{store.url}: has no report yet, so there is nothing to compare. Run it to its end.")
    found = []
    for row in report.value(store)["rounds"]:
        commit = find_commit(store, f"{row['round']}/evaluate")
        if commit is None:
            raise InputError(f"{store.url}: {row['round']}/evaluate has no commit. See 'ray-ns verify {store.url}'.")
        scores = Scores(commit, store)
        found.append(_Scored(store, dict(row), scores, scores.predictions("test")))
    return found


def _difference(one: _Scored, other: _Scored) -> dict[str, Any]:
    """Top-1 of ``one`` - ``other`` in points with its 95 % interval; paired where the test images are the same."""
    found: Verdict | None = None
    why: str | None = None
    first, second, images = one.scores.top1("test"), other.scores.top1("test"), one.scores.images("test")
    told = {"network": one.name, "images": images}
    if first is None or second is None:
        return told | {"unpaired": "one has no test images", "points": None, "low": None, "high": None}
    if one.predictions is None or other.predictions is None:
        why = "a run of format 1 or 2 has kept no predictions"
    elif one.images is None or one.images != other.images:
        why = "their test images are not the same, or it is not known"
    elif not one.predictions["truth"].equals(other.predictions["truth"]):
        why = "their test images have other labels"
    else:
        found = verdict(right(one.predictions), right(other.predictions))
    if found is None and images == other.scores.images("test"):
        found = unpaired(first, second, images)
    told["unpaired"] = why
    if found is None:
        return told | {"points": round(100 * (first - second), 6), "low": None, "high": None}
    return told | vars(found) | {"verdict": found.word}
