"""Everything a training needs to go on: weights, their average, the optimiser's memory, the step and the scores.

No generator's state is here, because every random draw is keyed by the step.
"""

from collections.abc import Mapping
from typing import Any

import torch
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn
from torch.optim import Optimizer

from ray_ns.config import Data, Training
from ray_ns.keyed import seed
from ray_ns.models.ema import averaged
from ray_ns.models.zoo import build, freeze, pretrained_file
from ray_ns.train.optim import optimizer


class TrainState:
    """One network in training. ``ema`` is None where the recipe averages nothing.

    ``scores``: (step, top-1) of ``result`` on validation images, so far. ``best``: the weights of the best of them, on
    the CPU, where the recipe keeps those.
    """

    def __init__(self, network: nn.Module, ema: ModelEmaV3 | None, optimizer: Optimizer) -> None:
        self.network = network
        self.ema = ema
        self.optimizer = optimizer
        self.step = 0
        self.scores: list[tuple[int, float]] = []
        self.best: Mapping[str, Tensor] = {}

    @classmethod
    def fresh(
        cls,
        recipe: Training,
        data: Data,
        key: int,
        device: torch.device,
        first: Mapping[str, Tensor] | None = None,
        frozen: int = 0,
    ) -> "TrainState":
        """A network before its first step, with the weights ``first``, else the pretrained ones, else ``key``'s.

        ``frozen``: so many of its first layers are not trained.
        """
        torch.manual_seed(seed(key, 2) % 2**63)
        network = build(recipe.model, data, None if first else pretrained_file(recipe.model))
        if first:
            network.load_state_dict(first)
        freeze(network, frozen)
        network = network.to(device).to(memory_format=torch.channels_last)
        return cls(network, averaged(network, recipe.ema_decay), optimizer(network, recipe))

    @property
    def result(self) -> nn.Module:
        """The network that labels and is evaluated: the average where there is one."""
        return self.network if self.ema is None else self.ema.module

    def score(self, top1: float, keep: bool) -> None:
        """Note what ``result`` scores now; ``keep`` its weights where no earlier ones scored as much."""
        better = all(top1 > before for _, before in self.scores)
        self.scores.append((self.step, top1))
        if keep and better:
            self.best = _copied(self.result.state_dict())

    @property
    def best_score(self) -> tuple[int, float]:
        """(step, top-1) of the best score; the earlier of two equals."""
        return max(self.scores, key=lambda it: it[1])

    def finished(self, recipe: Training) -> bool:
        """Whether the recipe asks for no further step: all are done, or too many scores were no better."""
        if recipe.patience is None or not self.scores:
            return self.step >= recipe.steps
        idle = len(self.scores) - 1 - self.scores.index(self.best_score)
        return self.step >= recipe.steps or idle >= recipe.patience

    def take_best(self) -> None:
        """Put the weights of the best score in the place of ``result``'s, where they were kept."""
        if self.best:
            self.result.load_state_dict(self.best)

    def tensors(self) -> dict[str, Tensor]:
        """A copy of all tensors by name, on the CPU: the steps that follow do not change it."""
        named = {f"network/{name}": tensor for name, tensor in self.network.state_dict().items()}
        if self.ema is not None:
            named |= {f"ema/{name}": tensor for name, tensor in self.ema.module.state_dict().items()}
        for index, slots in self.optimizer.state_dict()["state"].items():
            named |= {f"optimizer/{index}/{name}": v for name, v in slots.items() if isinstance(v, Tensor)}
        return _copied(named) | {f"best/{name}": tensor for name, tensor in self.best.items()}

    def facts(self) -> dict[str, Any]:
        """The scores, and what of the optimiser's memory is no tensor of its state, as JSON values.

        Some optimisers of timm (lamb, adan) count their steps in the parameter groups: as a tensor, which is a float
        here, or as an int.
        """
        held = self.optimizer.state_dict()
        return {
            "slots": {
                f"{index}/{name}": value
                for index, slots in held["state"].items()
                for name, value in slots.items()
                if not isinstance(value, Tensor)
            },
            "steps": {
                str(index): float(group["step"]) if isinstance(group["step"], Tensor) else group["step"]
                for index, group in enumerate(held["param_groups"])
                if "step" in group
            },
            "scores": [list(score) for score in self.scores],
        }

    def load(self, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Take up what ``tensors`` and ``facts`` held after ``step`` steps. Shapes are checked by torch."""
        self.step = step
        self.scores = [(at, top1) for at, top1 in facts["scores"]]
        self.best = _below(tensors, "best")
        self.network.load_state_dict(_below(tensors, "network"))
        if self.ema is not None:
            self.ema.module.load_state_dict(_below(tensors, "ema"))
        slots: dict[int, dict[str, Any]] = {}
        for name, value in {**_below(tensors, "optimizer"), **facts["slots"]}.items():
            index, slot = name.split("/", 1)
            if isinstance(value, Tensor) and value.dim() == 4:
                # As the weights lie in memory: a norm over another layout sums in another order.
                value = value.contiguous(memory_format=torch.channels_last)
            slots.setdefault(int(index), {})[slot] = value
        groups = self.optimizer.state_dict()["param_groups"]
        for number, steps in facts["steps"].items():
            groups[int(number)]["step"] = torch.tensor(steps) if isinstance(steps, float) else steps
        self.optimizer.load_state_dict({"state": slots, "param_groups": groups})


def _copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous copies on the CPU."""
    return {name: torch.empty(it.shape, dtype=it.dtype).copy_(it.detach()) for name, it in tensors.items()}


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    start = f"{prefix}/"
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}
