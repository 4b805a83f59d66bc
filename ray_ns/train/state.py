"""Everything a training needs to go on: weights, their averages, the optimisers' memory, the step and the scores.

No generator's state is here, because every random draw is keyed by the step.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any

import torch
from timm.scheduler.scheduler import Scheduler
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ray_ns.config import Data, Fixing, Training
from ray_ns.keyed import seed
from ray_ns.models import fixres
from ray_ns.models.ema import averaged
from ray_ns.models.zoo import build, freeze, pretrained_file
from ray_ns.train.objective import NetPlan, Objective
from ray_ns.train.optim import optimizer, schedule
from ray_ns.train.precision import autocast

OTHERS = "nets"  # where a checkpoint holds those that are not kept


class Net:
    """One network in training, with the moving ``average`` of its weights and its ``optimizer``.

    ``average`` is None where the recipe averages nothing. ``delay``: see ``NetPlan``. Call it to go forward, at the
    recipe's precision, as it is trained: through ``wrapped``, which is the network, or that one wrapped for several
    workers.
    """

    def __init__(self, network: nn.Module, recipe: Training, delay: int = 0) -> None:
        self.network = self.wrapped = network
        self.average = averaged(network, recipe.ema_decay, recipe.ema_warmup)
        self.optimizer = optimizer(network, recipe)
        self.recipe, self.delay = recipe, delay
        self._device = next(network.parameters()).device
        # What is frozen keeps its running figures too, and drops nothing.
        self._frozen = [
            module
            for module in network.modules()
            if (weights := list(module.parameters())) and not any(weight.requires_grad for weight in weights)
        ]

    def __call__(self, pixels: Tensor) -> Tensor:
        """Logits of ``pixels``."""
        with autocast(self.recipe.precision, self._device):
            logits: Tensor = self.wrapped(pixels)
        return logits

    @cached_property
    def _schedule(self) -> Scheduler:
        return schedule(self.optimizer, self.recipe.model_copy(update={"steps": self.recipe.steps - self.delay}))

    def set_rate(self, step: int) -> None:
        """Give the optimiser the learning rate of a step."""
        self._schedule.step_update(max(0, step - self.delay))
        if step < self.delay:
            for group in self.optimizer.param_groups:
                group["lr"] = 0.0

    @property
    def result(self) -> nn.Module:
        """The network that labels and is evaluated: the average where there is one."""
        return self.network if self.average is None else self.average.module

    def begin(self) -> None:
        """Make it ready for a step."""
        self.wrapped.train()
        for module in self._frozen:
            module.eval()
        self.optimizer.zero_grad()

    def update(self, steps: int) -> None:
        """Update the weights by the gradients that lie in them, and the average, at the end of step number ``steps``.

        The gradients are the workers' common ones, so what is clipped is too.
        """
        if self.recipe.optimizer.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.optimizer.clip)
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.network, max(0, steps - self.delay))

    def unsummed(self) -> AbstractContextManager[None]:
        """Where gradients stay this worker's own until those of the last microbatch join them."""
        return self.wrapped.no_sync() if isinstance(self.wrapped, DistributedDataParallel) else nullcontext()

    def tensors(self) -> dict[str, Tensor]:
        """Its tensors by name."""
        named = {f"network/{name}": tensor for name, tensor in self.network.state_dict().items()}
        if self.average is not None:
            named |= {f"ema/{name}": tensor for name, tensor in self.average.module.state_dict().items()}
        for index, slots in self.optimizer.state_dict()["state"].items():
            named |= {f"optimizer/{index}/{name}": v for name, v in slots.items() if isinstance(v, Tensor)}
        return named

    def facts(self) -> dict[str, Any]:
        """What of the optimiser's memory is no tensor of its state, as JSON values.

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
        }

    def load(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Take up what ``tensors`` and ``facts`` held. Shapes are checked by torch."""
        self.network.load_state_dict(_below(tensors, "network"))
        if self.average is not None:
            self.average.module.load_state_dict(_below(tensors, "ema"))
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


class TrainState:
    """The networks of one training, ``nets``; the one called ``keeps`` is scored, and committed at the end.

    ``scalars``: what the objective remembers besides, by name. ``scores``: (step, top-1) of ``result`` on validation
    images, so far. ``best``: the weights of the best of them, on the CPU, where the recipe keeps those.
    """

    def __init__(self, nets: Mapping[str, Net], keeps: str) -> None:
        self.nets = nets
        self.keeps = keeps
        self.step = 0
        self.scalars: dict[str, float] = {}
        self.scores: list[tuple[int, float]] = []
        self.best: Mapping[str, Tensor] = {}

    @classmethod
    def fresh(
        cls,
        objective: Objective,
        data: Data,
        key: int,
        device: torch.device,
        first: Mapping[str, Tensor] | None = None,
        frozen: int = 0,
    ) -> "TrainState":
        """The objective's networks before the first step, with their pretrained weights, else with ``key``'s.

        ``first``: the weights that the kept one begins with instead; ``frozen``: so many of its first layers are not
        trained.
        """
        nets = {}
        for number, (name, asked) in enumerate(objective.networks().items()):
            plan = asked if isinstance(asked, NetPlan) else NetPlan(asked)
            recipe, kept = plan.recipe, name == objective.keeps
            torch.manual_seed(seed(key, 2, *([] if kept else [number])) % 2**63)
            begin = first if kept else None
            if plan.made is not None:
                network = plan.made(data)
            else:
                network = build(recipe.model, data, None if begin else pretrained_file(recipe.model))
            if begin:
                network.load_state_dict(begin)
            freeze(network, frozen if kept else 0)
            if isinstance(recipe, Fixing):
                fixres.prepare(network, recipe.variant)
            nets[name] = Net(network.to(device).to(memory_format=torch.channels_last), recipe, plan.delay)
        return cls(nets, objective.keeps)

    @property
    def kept(self) -> Net:
        """The network that is scored, and committed at the end."""
        return self.nets[self.keeps]

    @property
    def result(self) -> nn.Module:
        """The network that labels and is evaluated: the kept one, or its average."""
        return self.kept.result

    def score(self, top1: float, keep: bool) -> None:
        """Note what ``result`` scores now; ``keep`` its weights where no earlier ones scored as much."""
        better = all(top1 > before for _, before in self.counted)
        self.scores.append((self.step, top1))
        if keep and better and self.counted:
            self.best = _copied(self.result.state_dict())

    @property
    def counted(self) -> list[tuple[int, float]]:
        """The scores since the kept network learns: those of one that waits neither end a training nor are its best."""
        return [it for it in self.scores if it[0] > self.kept.delay]

    @property
    def best_score(self) -> tuple[int, float]:
        """(step, top-1) of the best score that counts; the earlier of two equals."""
        return max(self.counted, key=lambda it: it[1])

    def finished(self, recipe: Training) -> bool:
        """Whether the recipe asks for no further step: all are done, or too many scores were no better."""
        counted = self.counted
        if recipe.patience is None or not counted:
            return self.step >= recipe.steps
        idle = len(counted) - 1 - counted.index(self.best_score)
        return self.step >= recipe.steps or idle >= recipe.patience

    def take_best(self) -> None:
        """Put the weights of the best score in the place of ``result``'s, where they were kept."""
        if self.best:
            self.result.load_state_dict(self.best)

    def tensors(self) -> dict[str, Tensor]:
        """A copy of all tensors by name, on the CPU: the steps that follow do not change it.

        Those of the kept network lie at the top, those of another one below ``nets/`` and its name.
        """
        named = self.kept.tensors()
        for name, net in self._others():
            named |= {f"{OTHERS}/{name}/{key}": tensor for key, tensor in net.tensors().items()}
        return _copied(named) | {f"best/{name}": tensor for name, tensor in self.best.items()}

    def facts(self) -> dict[str, Any]:
        """The scores, the scalars, and what of the optimisers' memory is no tensor of its state, as JSON values."""
        return {
            **self.kept.facts(),
            OTHERS: {name: net.facts() for name, net in self._others()},
            "scores": [list(score) for score in self.scores],
            "scalars": dict(self.scalars),
        }

    def load(self, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Take up what ``tensors`` and ``facts`` held after ``step`` steps. Shapes are checked by torch."""
        self.step = step
        self.scores = [(at, top1) for at, top1 in facts["scores"]]
        self.scalars = dict(facts.get("scalars", {}))  # checkpoints of earlier versions hold none
        self.best = _below(tensors, "best")
        self.kept.load(tensors, facts)
        for name, net in self._others():
            net.load(_below(tensors, f"{OTHERS}/{name}"), facts[OTHERS][name])

    def _others(self) -> list[tuple[str, Net]]:
        return [(name, net) for name, net in self.nets.items() if name != self.keeps]


def _copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous copies on the CPU."""
    return {name: torch.empty(it.shape, dtype=it.dtype).copy_(it.detach()) for name, it in tensors.items()}


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    start = f"{prefix}/"
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}
