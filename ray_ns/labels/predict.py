"""The teacher: fixed batches of images to class probabilities."""

import numpy as np
import torch
from torch import nn

from ray_ns.config import Data


class Teacher:
    """An un-noised network that labels images.

    Every batch is padded to ``batch`` images, because the bits of a result depend on the batch's shape; with the
    same weights, device type, precision, threads and batch, the same images give the same bits.
    """

    def __init__(
        self,
        network: nn.Module,
        data: Data,
        batch: int,
        precision: str,
        device: torch.device,
        compiled: bool = False,
    ) -> None:
        network = network.eval().to(device).to(memory_format=torch.channels_last)
        self._network = torch.compile(network) if compiled else network
        self._batch = batch
        self._device = device
        self._bfloat16 = precision == "bfloat16"
        self._mean = 255 * torch.tensor(data.mean, device=device)[:, None, None]
        self._std = 255 * torch.tensor(data.std, device=device)[:, None, None]

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Probabilities, float32 (n, classes), of uint8 images (n, H, W, channels) with n <= batch."""
        count = len(images)
        if count < self._batch:
            images = np.concatenate([images, np.zeros((self._batch - count, *images.shape[1:]), np.uint8)])
        held = torch.from_numpy(images if images.flags.writeable else images.copy())
        if self._device.type == "cuda":
            held = held.pin_memory()
        pixels = held.to(self._device, non_blocking=True).permute(0, 3, 1, 2).float()
        pixels = pixels.sub_(self._mean).div_(self._std)  # NHWC in memory all along, which is channels_last
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bfloat16):
            logits = self._network(pixels)
        return torch.softmax(logits.float(), 1)[:count].cpu().numpy()
