"""Which parts of a run die, and when: a schedule is a function of its seed alone, and waits for evidence, not for time.

Evidence is what the run has stored: so many keys below a prefix, or a later stage that has begun. A strike is made once
its evidence is there and its victim lives. On a machine of any speed the same parts die at the same place of the work.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Victim = Literal["driver", "trainer", "teacher", "node", "store"]
VICTIMS: dict[Victim, str] = {
    "driver": "the driver is killed",
    "trainer": "a training worker is killed",
    "teacher": "a labelling actor is killed",
    "node": "the second node dies, another joins",
    "store": "the S3 server is killed and is away for {} s",
}
# In the order in which a run of two rounds comes to them: a prefix, of how many keys at most, and who may die then.
# A training's checkpoints are those of steps 10, 20, ...: two keys each.
TRAINING: tuple[Victim, ...] = ("driver", "trainer", "node", "store")
LABELLING: tuple[Victim, ...] = ("driver", "teacher", "node", "store")
MOMENTS: tuple[tuple[str, int, tuple[Victim, ...]], ...] = (
    ("rounds/0/train/plan.json", 1, TRAINING),
    ("rounds/0/train/checkpoints/", 3, TRAINING),
    ("rounds/0/evaluate/plan.json", 1, ("driver", "node", "store")),
    ("rounds/1/label/plan.json", 1, LABELLING),
    ("rounds/1/label/done/", 2, LABELLING),
    ("rounds/1/select/plan.json", 1, ("driver", "node", "store")),
    ("rounds/1/train/plan.json", 1, TRAINING),
    ("rounds/1/train/checkpoints/", 3, TRAINING),
    ("rounds/2/label/plan.json", 1, LABELLING),
    ("rounds/2/label/done/", 2, LABELLING),
    ("rounds/2/train/checkpoints/", 3, TRAINING),
    ("rounds/2/evaluate/plan.json", 1, ("driver", "store")),
)
BEGINS = "/plan.json"
STRIKES = (2, 4)
AWAY = (3, 12)  # seconds that the store is away


@dataclass(frozen=True)
class Strike:
    """``victim`` dies when ``count`` keys begin with ``prefix``. ``seconds``: for how long the store is away."""

    victim: Victim
    prefix: str
    count: int
    seconds: int = 0

    def __str__(self) -> str:
        """In words: ``2 x rounds/1/label/done/: the driver is killed``."""
        many = f"{self.count} x " if self.count > 1 else ""
        return f"{many}{self.prefix}: {VICTIMS[self.victim].format(self.seconds)}"

    def is_due(self, keys: Iterable[str]) -> bool:
        """Whether the run has come so far. What is gone again, as checkpoints are, is known by what follows."""
        keys = list(keys)
        later = [prefix for prefix, _, _ in MOMENTS[self.moment + 1 :] if prefix.endswith(BEGINS)]
        passed = any(key in later for key in keys)
        return passed or sum(key.startswith(self.prefix) for key in keys) >= self.count

    @property
    def begins(self) -> bool:
        """Whether it falls where a stage begins."""
        return self.prefix.endswith(BEGINS)

    @property
    def moment(self) -> int:
        """The number of the moment in the run."""
        return next(at for at, (prefix, _, _) in enumerate(MOMENTS) if prefix == self.prefix)


def schedule(seed: int) -> list[Strike]:
    """The strikes of a seed, in the order in which they fall."""
    drawn = random.Random(f"chaos {seed}")
    moments = sorted(drawn.sample(range(len(MOMENTS)), drawn.randint(*STRIKES)))
    strikes = []
    for at in moments:
        prefix, most, victims = MOMENTS[at]
        victim = drawn.choice(victims)
        away = drawn.randint(*AWAY) if victim == "store" else 0
        strikes.append(Strike(victim, prefix, drawn.randint(1, most), away))
    return strikes


def seeds(words: str) -> range:
    """``3..7``, both ends too, or ``3``."""
    first, _, last = words.partition("..")
    found = range(int(first), int(last or first) + 1)
    assert found, f"SEEDS={words}: give FIRST..LAST"
    return found
