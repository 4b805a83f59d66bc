"""The optimiser and its learning rate: timm's."""

import difflib

from timm.optim import create_optimizer_v2, list_optimizers
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from torch import nn
from torch.optim import Optimizer

from ray_ns import config
from ray_ns.errors import InputError


def optimizer(network: nn.Module, settings: config.Optimizer) -> Optimizer:
    """Timm's optimiser of that name; no weight decay on biases and norms (1-d parameters).

    Raises ``InputError`` where timm has none of that name, or it refuses its arguments.
    """
    known = [str(name) for name in list_optimizers()]
    if settings.name not in known:
        near = difflib.get_close_matches(settings.name, known, 3)
        hint = f"did you mean {', '.join(near)}?" if near else "see timm.optim.list_optimizers()"
        raise InputError(f"optimizer.name: timm has no optimizer {settings.name!r}; {hint}")
    try:
        return create_optimizer_v2(
            network, settings.name, lr=settings.lr, weight_decay=settings.weight_decay, momentum=settings.momentum
        )
    except (ValueError, TypeError) as error:
        raise InputError(
            f"optimizer.{settings.name} refuses its settings (optimizer.momentum = {settings.momentum:g}): {error}"
        ) from error


def schedule(optimizer: Optimizer, settings: config.Optimizer, steps: int) -> Scheduler:
    """The learning rate as a function of the step (``step_update``): linear warm-up from 0, then cosine to 0 or flat.

    It has no state: step_update(t) gives the rate of step t whatever was called before.
    """
    flat = settings.schedule == "constant"
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched="step" if flat else "cosine",
        num_epochs=steps,
        decay_epochs=steps,
        decay_rate=1.0,
        warmup_epochs=min(settings.warmup_steps, steps),
        warmup_lr=0.0,
        min_lr=0.0,
        step_on_epochs=False,
        updates_per_epoch=1,
    )
    return scheduler
