"""Fine-tune a trained network for a short while at a higher resolution (the paper, section 3.1)."""

from dataclasses import dataclass

from ray_ns.artifacts.network import Network
from ray_ns.config import Config, Training
from ray_ns.engine.run import Run
from ray_ns.engine.stages.training import NetworkStage, Plan
from ray_ns.keyed import seed


@dataclass(frozen=True)
class Finetune(NetworkStage):
    """The committed network that ``recipe.finetune`` makes of ``network``, on labelled images without input noise."""

    recipe: Training
    number: int
    network: Network

    name = "finetune"

    @classmethod
    def in_round(cls, config: Config) -> bool:
        return config.students[0].tuning is not None

    def plan(self, run: Run) -> Plan:
        assert self.recipe.tuning is not None
        tuning = run.settings.completed(self.recipe.tuning)
        config = run.config.reading(self.recipe.tuned_on(run.config.data))
        key = seed(config.run.seed, self.number, 1)
        return Plan(config, tuning, tuning.batch, key, None, self.network, self.recipe.finetune.freeze)
