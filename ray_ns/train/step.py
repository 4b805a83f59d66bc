"""One optimiser step on one batch of labelled and pseudo-labelled images."""

import torch
import torch.distributed as dist
from torch import nn

from ray_ns.config import Data, Student, Training
from ray_ns.errors import ResumableError
from ray_ns.images.augment import affine
from ray_ns.keyed import seed
from ray_ns.models.loss import noisy_student_loss
from ray_ns.train.data import Batch
from ray_ns.train.state import TrainState


class Step:
    """The step of one recipe on one device. ``network`` is the state's own, or that one wrapped for several workers."""

    def __init__(
        self, recipe: Training, data: Data, key: int, network: nn.Module, device: torch.device, rank: int
    ) -> None:
        self._recipe, self._key, self._network, self._device, self._rank = recipe, key, network, device, rank
        # What is frozen keeps its running figures too, and drops nothing.
        self._frozen = [
            module
            for module in network.modules()
            if (weights := list(module.parameters())) and not any(weight.requires_grad for weight in weights)
        ]
        self._mean = torch.tensor(data.mean, device=device)[:, None, None]
        self._std = torch.tensor(data.std, device=device)[:, None, None]

    def __call__(self, state: TrainState, batch: Batch) -> float:
        """Noise the images, go forward and back, update weights and average; the loss.

        Every draw is keyed by (key, step, rank). Raises ``ResumableError`` on all workers, before the update, where
        a loss or a gradient is not finite.
        """
        torch.manual_seed(seed(self._key, 3, state.step, self._rank) % 2**63)
        self._network.train()
        for module in self._frozen:
            module.eval()
        pixels = self._noised(batch.images.to(self._device))
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._recipe.precision == "bfloat16"):
            logits = self._network(pixels)
        kind = self._recipe.loss if isinstance(self._recipe, Student) else "mean"
        loss = noisy_student_loss(logits, batch.targets.to(self._device), batch.labelled, kind)
        self._check_finite("loss", loss, state.step)
        state.optimizer.zero_grad()
        loss.backward()
        gradients = [weight.grad for weight in self._network.parameters() if weight.grad is not None]
        self._check_finite("gradient", torch.nn.utils.get_total_norm(gradients), state.step)
        state.optimizer.step()
        state.step += 1
        if state.ema is not None:
            state.ema.update(state.network, state.step)
        return loss.item()

    def _noised(self, images: torch.Tensor) -> torch.Tensor:
        pixels = images.permute(0, 3, 1, 2).float() / 255
        noise = self._recipe.noise
        if noise.augment == "affine":
            pixels = affine(pixels, noise.magnitude, noise.flip, torch.default_generator)
        return ((pixels - self._mean) / self._std).contiguous(memory_format=torch.channels_last)

    def _check_finite(self, what: str, value: torch.Tensor, step: int) -> None:
        culprit = torch.tensor(-1 if torch.isfinite(value) else self._rank, device=self._device)
        if dist.is_initialized():
            dist.all_reduce(culprit, dist.ReduceOp.MAX)
        if culprit >= 0:
            raise ResumableError(
                f"the {what} of worker {int(culprit)} is not finite at step {step}; nothing was updated. Lower "
                f"optimizer.lr, or lengthen optimizer.warmup_steps."
            )
