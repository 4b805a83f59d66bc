"""Dropout and stochastic depth for some images of a batch alone, in one forward pass.

The paper takes noise from unlabelled images while labelled ones keep it (section 4.1). Both go through the network
together, so that batch norm sees one batch, as in the released code.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ray_ns.config import Data
from ray_ns.config.training import PseudoNoise
from ray_ns.errors import InputError

# timm's models call these, by themselves and through torch.nn's modules.
DROPOUTS = frozenset({F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout})


@contextmanager
def spared(network: nn.Module, rows_B: Tensor, dropout: bool, drop_path: bool) -> Iterator[None]:
    """While the block runs, the images at ``rows_B``, bool (B,), go through ``network`` with less noise.

    ``dropout``, ``drop_path``: what they are spared. The draws are those of the whole batch, so what the other images
    get does not change. Raises ``InputError`` where the network drops something that is not one row per image.
    """
    with ExitStack() as held:
        if drop_path:
            for module in network.modules():
                if isinstance(module, DropPath):
                    held.callback(module.register_forward_hook(_undropped(rows_B)).remove)
        if dropout:

            def drop(func: Callable[..., Tensor], asked: dict[str, Any]) -> Tensor:
                return kept(rows_B, asked["input"], func(**{**asked, "inplace": False}))

            held.enter_context(OnDropout(drop))
        yield


def check(network: nn.Module, data: Data, images: int, noise: PseudoNoise) -> None:
    """Raise ``InputError`` where ``images`` of a batch cannot be spared the ``noise`` of a network on torch's meta."""
    if noise == PseudoNoise():
        return
    rows_B = torch.zeros(images, dtype=torch.bool, device="meta")
    with spared(network.train(), rows_B, dropout=not noise.dropout, drop_path=not noise.drop_path):
        network(torch.empty(images, data.channels, data.size, data.size, device="meta"))
    network.eval()


def _undropped(rows_B: Tensor) -> Callable[..., Tensor]:
    def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return kept(rows_B, args[0], output)

    return hook


class OnDropout(TorchFunctionMode):
    """While it is entered, ``drop`` is called for each of torch's dropouts, with the function and its arguments."""

    def __init__(self, drop: Callable[[Callable[..., Tensor], dict[str, Any]], Tensor]) -> None:
        super().__init__()
        self._drop = drop

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func not in DROPOUTS:
            return func(*args, **(kwargs or {}))
        return self._drop(func, inspect.signature(func).bind(*args, **(kwargs or {})).arguments)


def kept(rows_B: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """``before`` in the rows of ``rows_B``, ``after`` in the others: (B, ...)."""
    if len(before) != len(rows_B):
        raise InputError(
            f"pseudo_noise: the network drops among {len(before)} rows where {len(rows_B)} images go through it, so it "
            f"cannot be told whose they are. Set pseudo_noise.dropout and drop_path to true, or take another model."
        )
    return torch.where(rows_B.view(-1, *[1] * (before.dim() - 1)), before, after)
