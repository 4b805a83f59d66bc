"""One optimiser step on one batch of labelled and pseudo-labelled images."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ray_ns.config import Data, Student, Training
from ray_ns.errors import ResumableError
from ray_ns.images.augment import affine
from ray_ns.keyed import seed
from ray_ns.models.loss import noisy_student_loss
from ray_ns.train.data import Batch
from ray_ns.train.precision import autocast
from ray_ns.train.state import TrainState


class NotFiniteError(ResumableError):
    """A loss or a gradient is NaN or infinite. Raised by all workers, before the update."""


class Step:
    """The step of one recipe on one device. ``network`` is the state's own, or that one wrapped for several workers.

    ``microbatch``: at most so many images go through the network at once; the gradients of the worker's share are
    summed over them, so the loss is the mean over the same global batch (batch norm alone sees a microbatch).
    ``told`` says whether this worker is to leave. After a step ``leaving`` is the same to all of them: whether any was.
    """

    def __init__(
        self,
        recipe: Training,
        data: Data,
        key: int,
        network: nn.Module,
        device: torch.device,
        rank: int,
        microbatch: int | None = None,
        told: Callable[[], bool] = lambda: False,
    ) -> None:
        self._recipe, self._key, self._network, self._device, self._rank = recipe, key, network, device, rank
        # What is frozen keeps its running figures too, and drops nothing.
        self._frozen = [
            module
            for module in network.modules()
            if (weights := list(module.parameters())) and not any(weight.requires_grad for weight in weights)
        ]
        self._microbatch = microbatch
        self._told = told
        self.leaving = False
        self._mean = torch.tensor(data.mean, device=device)[:, None, None]
        self._std = torch.tensor(data.std, device=device)[:, None, None]

    def __call__(self, state: TrainState, batch: Batch) -> float:
        """Noise the images, go forward and back, update weights and average; the loss of the global batch.

        Every draw is keyed by (key, step, rank). Raises ``NotFiniteError`` on all workers, before the update, where
        a loss or a gradient is not finite.
        """
        torch.manual_seed(seed(self._key, 3, state.step, self._rank) % 2**63)
        self._network.train()
        for module in self._frozen:
            module.eval()
        state.optimizer.zero_grad()
        parts = -(-len(batch.images) // (self._microbatch or len(batch.images)))
        loss = torch.zeros((), device=self._device)
        for part in range(parts):
            # Every parts-th image, so that all microbatches have labelled images in the same share.
            images, targets = batch.images[part::parts], batch.targets[part::parts]
            with self._unsummed() if part < parts - 1 else nullcontext():
                loss = loss + self._backward(images, targets, batch)
        mean = self._agreed(loss, state)
        state.optimizer.step()
        state.step += 1
        if state.ema is not None:
            state.ema.update(state.network, state.step)
        return mean

    def _backward(self, images: torch.Tensor, targets: torch.Tensor, whole: Batch) -> torch.Tensor:
        """Go forward and back with some of the ``whole`` batch's images; their part of its loss."""
        pixels = self._noised(images.to(self._device))
        with autocast(self._recipe.precision, self._device):
            logits = self._network(pixels)
        kind = self._recipe.loss if isinstance(self._recipe, Student) else "mean"
        loss = noisy_student_loss(logits, targets.to(self._device), whole.labelled, kind)
        if kind == "mean":  # of these images alone; the sum is already divided by the whole batch's labelled images
            loss = loss * (len(images) / len(whole.images))
        loss.backward()
        return loss.detach()

    def _unsummed(self) -> AbstractContextManager[None]:
        """Where gradients stay this worker's own until those of the last microbatch join them."""
        return self._network.no_sync() if isinstance(self._network, DistributedDataParallel) else nullcontext()

    def _noised(self, images: torch.Tensor) -> torch.Tensor:
        pixels = images.permute(0, 3, 1, 2).to(self._mean.dtype).div_(255)
        noise = self._recipe.noise
        if noise.augment == "affine":
            pixels = affine(pixels, noise.magnitude, noise.flip, torch.default_generator)
        return pixels.sub_(self._mean).div_(self._std).contiguous(memory_format=torch.channels_last)

    def _agreed(self, loss: torch.Tensor, state: TrainState) -> float:
        """The mean of the workers' losses. All of them look at the same numbers, so all stop or none does."""
        gradients = [weight.grad for weight in self._network.parameters() if weight.grad is not None]
        world = dist.get_world_size() if dist.is_initialized() else 1
        found = torch.zeros(world + 2, device=self._device)
        found[self._rank if world > 1 else 0] = loss
        found[world] = torch.nn.utils.get_total_norm(gradients)
        found[world + 1] = float(self._told())
        if world > 1:
            dist.all_reduce(found)
        *losses, norm, leaving = found.tolist()
        self.leaving = leaving > 0
        wrong = [worker for worker, one in enumerate(losses) if not math.isfinite(one)]
        if wrong or not math.isfinite(norm):
            what = f"loss of worker {', '.join(map(str, wrong))}" if wrong else "sum of the workers' gradients"
            raise NotFiniteError(
                f"the {what} is not finite at step {state.step}; nothing was updated. Lower optimizer.lr, or lengthen "
                f"optimizer.warmup_steps."
            )
        return sum(losses) / world
