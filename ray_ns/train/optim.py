"""The optimiser and its learning rate: timm's."""

import difflib
from typing import Any

from timm.optim import create_optimizer_v2, get_optimizer_info, list_optimizers
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from torch import nn
from torch.optim import Optimizer

from ray_ns.config import Training
from ray_ns.errors import InputError


def optimizer(network: nn.Module, recipe: Training) -> Optimizer:
    """Timm's optimiser of the recipe; no weight decay on biases and norms (1-d parameters), nothing for frozen ones.

    Raises ``InputError`` where timm has none of that name, or it refuses its arguments.
    """
    settings = recipe.optimizer
    known = [str(name) for name in list_optimizers()]
    if settings.name not in known:
        near = difflib.get_close_matches(settings.name, known, 3)
        hint = f"did you mean {', '.join(near)}?" if near else "see timm.optim.list_optimizers()"
        raise InputError(f"optimizer.name: timm has no optimizer {settings.name!r}; {hint}")
    own: dict[str, Any] = {} if settings.eps is None else {"eps": settings.eps}
    if own and not get_optimizer_info(settings.name).has_eps:
        raise InputError(f"optimizer.eps = {settings.eps:g}: {settings.name} has no epsilon; leave it out")
    try:
        return create_optimizer_v2(
            network,
            settings.name,
            lr=recipe.peak_lr,
            weight_decay=settings.weight_decay,
            momentum=settings.momentum,
            **own,
        )
    except (ValueError, TypeError) as error:
        raise InputError(
            f"optimizer.{settings.name} refuses its settings (optimizer.momentum = {settings.momentum:g}): {error}"
        ) from error


def schedule(optimizer: Optimizer, recipe: Training) -> Scheduler:
    """The learning rate as a function of the step (``step_update``): linear warm-up from 0, then as the recipe says.

    Cosine begins at the peak where the warm-up ends and reaches 0 at the last step. The staircase counts from step 0,
    as the released code's does (noisystudent utils.build_learning_rate). It has no state: step_update(t) gives the
    rate of step t whatever was called before.
    """
    settings = recipe.optimizer
    warmup = min(settings.warmup_steps, recipe.steps)
    cosine = settings.schedule == "cosine"
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched=settings.schedule,
        num_epochs=max(1, recipe.steps - warmup),
        decay_epochs=settings.decay_steps,
        decay_rate=settings.decay_rate,
        warmup_epochs=warmup,
        warmup_prefix=cosine,
        warmup_lr=0.0,
        min_lr=0.0,
        step_on_epochs=False,
        updates_per_epoch=1,
    )
    return scheduler
