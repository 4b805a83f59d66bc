"""The report that ends a run: which network is the best, and all scores."""

import json
from collections.abc import Mapping
from typing import Any

from ray_ns.artifacts.artifact import Artifact
from ray_ns.artifacts.network import Network
from ray_ns.errors import InputError, IntegrityError
from ray_ns.store import layout
from ray_ns.store.commit import find_commit
from ray_ns.store.objects import ObjectStore

REPORT = "report.json"


class Report(Artifact):
    """What ``report`` commits: ``methods.outcome.Outcome.as_json``."""

    def value(self, store: ObjectStore) -> Mapping[str, Any]:
        """The report as JSON values, its hash checked."""
        found: Mapping[str, Any] = json.loads(self.commit.parts[0].objects[REPORT].read(store))
        return found


def report_of(store: ObjectStore) -> Report | None:
    """The report of a run, of its newest generation; None where the run, or that generation, has not ended."""
    commit = find_commit(store, layout.last_stage(store))
    return Report(commit) if commit is not None and REPORT in commit.parts[0].objects else None


def best_network(store: ObjectStore) -> Network:
    """The best network of a run that has ended, as its report names it.

    Raises ``InputError`` where the run has no report, ``IntegrityError`` where the network's commit is missing.
    """
    report = report_of(store)
    if report is None:
        raise InputError(
            f"{store.url}: has no best network, because it has not ended (no report). Run it to its end: 'ray-ns "
            f"status {store.url}' says where it stands."
        )
    return network_in(store, report)


def network_in(store: ObjectStore, report: Report) -> Network:
    """The best network that ``report`` names. ``IntegrityError`` where its commit is missing."""
    folder = str(report.value(store)["best_model"])
    commit = find_commit(store, folder.partition("/data/")[0])
    if commit is None:
        raise IntegrityError(f"{store.url}: {folder} has no commit, and the report names it. Restore it from a backup.")
    return Network(commit)
