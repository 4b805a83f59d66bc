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

    def __init__(self, network: nn.Module, data: Data, batch: int, precision: str, device: torch.device) -> None:
        self._network = network.eval().to(device).to(memory_format=torch.channels_last)
        self._batch = batch
        self._device = device
        self._bfloat16 = precision == "bfloat16"
        self._mean = 255 * torch.tensor(data.mean, device=device)[:, None, None]
        self._std = 255 * torch.tensor(data.std, device=device)[:, None, None]

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Probabilities, float32 (n, classes), of uint8 images (n, H, W, channels) with n <= batch."""
        count = len(images)
        padded = np.zeros((self._batch, *images.shape[1:]), np.uint8)
        padded[:count] = images
        pixels = torch.from_numpy(padded).to(self._device).permute(0, 3, 1, 2).float()
        pixels = ((pixels - self._mean) / self._std).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bfloat16):
            logits = self._network(pixels)
        return torch.softmax(logits.float(), 1)[:count].cpu().numpy()
