"""The settings of a selection, by class: threshold and K."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ray_ns.config import Select

GRID = (np.arange(101) / 100).astype(np.float32)  # thresholds on it need no counts of their own
AUTO = -1


@dataclass(frozen=True)
class Terms:
    """What is asked, by class: ``threshold`` float32 and ``wanted`` int64 (K, or AUTO) of shape (classes,)."""

    rule: str
    threshold: np.ndarray
    wanted: np.ndarray
    balance: bool
    seed: int

    @property
    def classes(self) -> int:
        return len(self.threshold)

    @property
    def on_grid(self) -> bool:
        """Whether bins end at the thresholds by themselves, so that counts made for any such terms serve for these."""
        return self.rule == "paper" and bool(np.isin(self.threshold, GRID).all())

    def below(self, labels: np.ndarray, confidence: np.ndarray) -> np.ndarray:
        """Which confidences, float32, lie below the threshold of their class (labels int64), bool (n,)."""
        if (self.threshold == self.threshold[0]).all():
            return confidence < self.threshold[0]  # a look-up per label takes ten times as long
        return confidence < self.threshold[labels]


def of_settings(settings: "Select", classes: int, seed: int) -> Terms:
    """What ``settings`` ask of ``classes`` classes; the ``thresholds`` and ``quotas`` of single classes go first."""
    threshold = np.full(classes, settings.threshold, np.float32)
    wanted = np.full(classes, AUTO if settings.per_class == "auto" else settings.per_class, np.int64)
    for label, value in settings.thresholds.items():
        threshold[label] = value
    for label, count in settings.quotas.items():
        wanted[label] = count
    return Terms(settings.rule, threshold, wanted, settings.balance, seed)


def all_labels(classes: int, seed: int) -> Terms:
    """Terms that select every label once."""
    return Terms("paper", np.zeros(classes, np.float32), np.full(classes, AUTO, np.int64), balance=False, seed=seed)
