"""The teacher: class probabilities of images, in batches of fixed size."""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import nn

from ray_ns.config import Data, decided
from ray_ns.models.views import views_of
from ray_ns.models.voting import ALONE, Voting

if TYPE_CHECKING:
    from ray_ns.models.noised import Noising

# What changes images against the network: of its logits, float32 pixels (n, channels, H, W) in 0..1 and their classes,
# int64 (n,), the changed pixels.
Attack = Callable[[Callable[[torch.Tensor], torch.Tensor], torch.Tensor, torch.Tensor], torch.Tensor]
# On a CPU so many pixels go through the network at once, which suits its caches: 16 images of 224 x 224.
CPU_PIXELS = 16 * 224 * 224


class Teacher:
    """An un-noised network that labels images.

    All batches have the same size, since the bits of a result depend on the batch's shape: on a GPU ``batch`` images,
    on a CPU as many as ``CPU_PIXELS`` allow. The last one is padded. The same images give the same bits if weights,
    device type, precision, threads and batch are the same.

    ``voting``: over which views the probabilities are averaged, and the temperature of each one's.

    Two threads may call it: on a GPU the images of one are copied while the network works on those of the other.
    """

    def __init__(
        self,
        network: nn.Module,
        data: Data,
        batch: int,
        precision: str,
        device: torch.device,
        compiled: bool = False,
        voting: Voting = ALONE,
    ) -> None:
        network = network.eval().to(device).to(memory_format=torch.channels_last)
        self._network = torch.compile(network) if compiled else network
        self._batch = batch if device.type == "cuda" else max(1, min(batch, CPU_PIXELS // data.size**2))
        self._device, self._voting = device, voting
        self._bfloat16 = decided(precision) == "bfloat16"
        self._of_thread = threading.local()
        self._turn = threading.Lock()
        self._turn_noised = threading.Lock()
        # Repeated for a row of pixels: three numbers at a time are too few for vector instructions.
        self._mean = (255 * torch.tensor(data.mean, device=device)).repeat(data.size)
        self._std = (255 * torch.tensor(data.std, device=device)).repeat(data.size)

    @torch.inference_mode()
    def __call__(self, images: np.ndarray, among: np.ndarray | None = None) -> np.ndarray:
        """Probabilities, float32 (n, classes), of uint8 images (n, H, W, channels).

        ``among``: the classes to choose among, bool (classes,); the logits of the others are cut before the softmax.
        """
        return self._in_batches(images, lambda pixels: self._probabilities(pixels, among))

    @torch.inference_mode()
    def logits(self, images: np.ndarray) -> np.ndarray:
        """As the network gives them in one view, float32 (n, classes), of uint8 images (n, H, W, channels)."""
        return self._in_batches(images, lambda pixels: self._network(pixels).float())

    def noised(self, images: np.ndarray, ids: np.ndarray, noising: "Noising") -> np.ndarray:
        """As ``__call__``, of images whose ids are int64 (n,), all of them and the network noised."""
        if not len(images):
            return self(images)
        found = []
        for begin in range(0, len(images), self._batch):
            some = images[begin : begin + self._batch]
            of_batch = np.zeros(self._batch, np.int64)  # the last one is padded
            of_batch[: len(some)] = ids[begin : begin + self._batch]
            with self._turn_noised, noising.on(cast(nn.Module, self._network), of_batch):
                found.append(self(noising.images(some, of_batch[: len(some)])))
        return np.concatenate(found)

    def attacked(self, images: np.ndarray, truth: np.ndarray, attack: Attack) -> np.ndarray:
        """As ``__call__``, of the images that ``attack`` makes of these, whose classes are ``truth``, int64 (n,)."""
        if not len(images):
            return self(images)
        found = []
        for begin in range(0, len(images), self._batch):
            some, of = images[begin : begin + self._batch], truth[begin : begin + self._batch]
            missing = self._batch - len(some)
            some = np.concatenate([some, np.zeros((missing, *some.shape[1:]), np.uint8)])
            classes = torch.from_numpy(np.concatenate([of, np.zeros(missing, np.int64)])).to(self._device)
            pixels = torch.from_numpy(some).to(self._device).permute(0, 3, 1, 2).float().div_(255)
            with self._turn:
                changed = attack(self._logits, pixels, classes)
                with torch.inference_mode():
                    views = views_of(changed, self._voting.views)
                    probabilities = _mean([self._softmax(self._logits(view).float()) for view in views])
            found.append(probabilities[: len(of)].cpu().numpy())
        return np.concatenate(found)

    def _logits(self, pixels: torch.Tensor) -> torch.Tensor:
        """Of float pixels (n, channels, H, W) in 0..1."""
        channels = pixels.shape[1]
        mean, std = (it[:channels].view(1, -1, 1, 1) / 255 for it in (self._mean, self._std))
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bfloat16):
            logits: torch.Tensor = self._network((pixels - mean) / std)
        return logits

    def _probabilities(self, pixels: torch.Tensor, among: np.ndarray | None) -> torch.Tensor:
        """The mean over the views of normalised pixels (n, channels, H, W)."""
        views = views_of(pixels, self._voting.views)
        return _mean([self._softmax(self._network(view).float(), among) for view in views])

    def _softmax(self, logits: torch.Tensor, among: np.ndarray | None = None) -> torch.Tensor:
        """Probabilities; NaN of an image for which a logit is no finite number, even where a softmax would hide it."""
        void = ~torch.isfinite(logits).all(1, keepdim=True)
        if among is not None:
            logits = logits.masked_fill(~torch.from_numpy(among).to(self._device), -torch.inf)
        return torch.softmax(logits / self._voting.temperature, 1).masked_fill(void, torch.nan)

    def _in_batches(self, images: np.ndarray, of: Callable[[torch.Tensor], torch.Tensor]) -> np.ndarray:
        if not len(images):
            return self._forward(images, of)
        begins = range(0, len(images), self._batch)
        return np.concatenate([self._forward(images[begin : begin + self._batch], of) for begin in begins])

    def _forward(self, images: np.ndarray, of: Callable[[torch.Tensor], torch.Tensor]) -> np.ndarray:
        count = len(images)
        if count < self._batch:
            images = np.concatenate([images, np.zeros((self._batch - count, *images.shape[1:]), np.uint8)])
        held = torch.from_numpy(images if images.flags.writeable else images.copy())
        with torch.cuda.stream(self._stream()):
            if self._device.type == "cuda":
                held = held.pin_memory()
            pixels = held.to(self._device, non_blocking=True).float().flatten(2).sub_(self._mean).div_(self._std)
            pixels = pixels.view(held.shape).permute(0, 3, 1, 2)  # stays NHWC in memory, which is channels_last
            # One at a time, so that memory holds one batch's activations only.
            with self._turn, torch.autocast(self._device.type, torch.bfloat16, enabled=self._bfloat16):
                return of(pixels)[:count].cpu().numpy()

    def _stream(self) -> torch.cuda.Stream | None:
        """This thread's own CUDA stream; None on a CPU."""
        if self._device.type != "cuda":
            return None
        if not hasattr(self._of_thread, "stream"):
            self._of_thread.stream = torch.cuda.Stream(self._device)
        return cast(torch.cuda.Stream, self._of_thread.stream)


def _mean(views: list[torch.Tensor]) -> torch.Tensor:
    return views[0] if len(views) == 1 else torch.stack(views).mean(0)
