"""The temperature of a teacher, with what it is worth."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from ray_ns.artifacts.artifact import Artifact
from ray_ns.store.commit import find_commit
from ray_ns.store.objects import ObjectStore

CALIBRATION = "calibration.json"


class Calibration(Artifact):
    """What ``calibrate`` commits."""

    @property
    def temperature(self) -> float:
        """What the logits are divided by."""
        return float(self.commit.summary["temperature"])

    def figures(self, store: ObjectStore) -> Mapping[str, Any]:
        """The content of its file, JSON values (``stages.calibrate``)."""
        stored = self.commit.parts[0].objects[CALIBRATION]
        found: Mapping[str, Any] = json.loads(stored.read(store))
        return found


def calibrations(store: ObjectStore, turns: Iterable[str]) -> dict[str, Mapping[str, Any]]:
    """The figures of those networks that have a calibration, by the folder of their turn."""
    found = {turn: find_commit(store, f"{turn}/calibrate") for turn in turns}
    return {turn: Calibration(commit).figures(store) for turn, commit in found.items() if commit is not None}
