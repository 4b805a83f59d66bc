"""A teacher that is noised while it labels: the paper's ablation of its un-noised one (section 4.1).

Every draw is keyed by the image. So an image gets the same noise in any batch, slice and attempt, and a labelling that
is resumed gives the labels that it would have given.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import Tensor, nn

from ray_ns.config import Noise
from ray_ns.errors import InputError
from ray_ns.images.augment import affine, per_image
from ray_ns.keyed import hashes, seed
from ray_ns.models.spared import OnDropout

OF_CHANNELS = (F.dropout1d, F.dropout2d, F.dropout3d)
GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # the step between two draws of an image (splitmix64)


@dataclass(frozen=True)
class Noising:
    """Input noise as ``noise`` says, of images of ``size`` pixels, and the noise of a network that has some.

    ``key``: of all its draws, beside each image's id.
    """

    noise: Noise
    size: int
    key: int

    def images(self, images: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """Noised copies of uint8 images (n, size, size, channels), whose ids are int64 (n,)."""
        apply = per_image(self.noise, self.size)
        found = images.copy()
        for place, number in enumerate(ids.tolist()):
            if apply is not None:
                found[place] = apply(found[place], seed(self.key, number))
            if self.noise.augment == "affine":
                generator = torch.Generator().manual_seed(seed(self.key, number) % 2**63)
                pixels = torch.from_numpy(found[place]).permute(2, 0, 1)[None].float() / 255
                pixels = affine(pixels, self.noise.magnitude, self.noise.flip, generator)
                found[place] = (255 * pixels[0]).round().byte().permute(1, 2, 0).numpy()
        return found

    @contextmanager
    def on(self, network: nn.Module, ids_B: np.ndarray) -> Iterator[None]:
        """While the block runs, ``network``, in eval mode, drops at its rates from one batch of images, ids int64 (B,).

        Batch norm stays that of eval mode.
        """
        draws = _Draws(ids_B, self.key)
        with ExitStack() as held:
            for module in network.modules():
                if isinstance(module, DropPath):
                    held.callback(module.register_forward_hook(_dropping(draws)).remove)
            held.enter_context(OnDropout(_always(draws)))
            yield


class _Draws:
    """Uniform draws, keyed by image and by which call of a forward pass asks."""

    def __init__(self, ids_B: np.ndarray, key: int) -> None:
        self._ids_B, self._key, self._calls = ids_B, key, 0

    def kept(self, like: Tensor, shape: Sequence[int], rate: float) -> Tensor:
        """1 / (1 - ``rate``) with that probability, else 0: of shape (B, ``shape``), as ``like`` is."""
        self._calls += 1
        if len(like) != len(self._ids_B):
            raise InputError(
                f"label.noised: the network drops among {len(like)} rows where {len(self._ids_B)} images go through "
                f"it, so it cannot be told whose they are. Set label.noised to false, or take another model."
            )
        first_B = hashes(self._ids_B, self._key, self._calls)
        with np.errstate(over="ignore"):
            values = first_B[:, None] + GOLDEN * np.arange(1, int(np.prod(shape)) + 1, dtype=np.uint64)
        kept = hashes(values, self._key) >= np.uint64(rate * 2**64)
        found = torch.from_numpy(kept.reshape(len(like), *shape)).to(like.device, like.dtype)
        return found / (1 - rate)


def _dropping(draws: _Draws) -> Callable[..., Tensor]:
    def hook(module: DropPath, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        kept = draws.kept(output, [1] * (output.dim() - 1), module.drop_prob)
        return output * (kept if module.scale_by_keep else kept.bool())

    return hook


def _always(draws: _Draws) -> Callable[..., Tensor]:
    """Dropout that drops in eval mode too."""

    def drop(func: Callable[..., Tensor], asked: dict[str, Any]) -> Tensor:
        before, rate = asked["input"], asked.get("p", 0.5)
        if func is F.dropout:
            shape = before.shape[1:]
        elif func in OF_CHANNELS:
            shape = (before.shape[1], *[1] * (before.dim() - 2))
        else:
            raise InputError(f"label.noised: {func.__name__} is not made for each image apart. Take another model.")
        noised: Tensor = before * draws.kept(before, shape, rate) if rate else before
        return noised

    return drop
