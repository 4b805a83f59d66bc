"""The settings of a selection, by class: threshold and K."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ray_ns.keyed import hashes

if TYPE_CHECKING:
    from ray_ns.config import Select

GRID = (np.arange(101) / 100).astype(np.float32)  # thresholds on it need no counts of their own
AUTO = -1
SHARE = 1  # sets the draw of the share apart from that of the copies


@dataclass(frozen=True)
class Terms:
    """What is asked, by class: ``threshold`` float32 and ``wanted`` int64 (K, or AUTO) of shape (classes,).

    ``share``: of the pool's images, those that may be selected (``drawn``), 0..1.
    """

    rule: str
    threshold: np.ndarray
    wanted: np.ndarray
    balance: bool
    seed: int
    share: float = 1.0

    @property
    def classes(self) -> int:
        return len(self.threshold)

    @property
    def on_grid(self) -> bool:
        """Whether bins end at the thresholds by themselves, so that counts made for any such terms serve for these."""
        return self.rule == "paper" and bool(np.isin(self.threshold, GRID).all())

    @property
    def counted_before(self) -> bool:
        """Whether the counts that the labelling made serve for these terms: those of all labels, by the grid's bins."""
        return self.on_grid and self.share == 1

    def drawn(self, ids: np.ndarray) -> np.ndarray:
        """Which images, int64 ids, are of the share: bool (n,). A larger share holds the images of a smaller one."""
        if self.share == 1:
            return np.ones(len(ids), bool)
        return hashes(ids, self.seed, SHARE) < np.uint64(self.share * 2**64)

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
    return Terms(settings.rule, threshold, wanted, settings.balance, seed, settings.pool_share)


def all_labels(classes: int, seed: int) -> Terms:
    """Terms that select every label once."""
    return Terms("paper", np.zeros(classes, np.float32), np.full(classes, AUTO, np.int64), balance=False, seed=seed)
