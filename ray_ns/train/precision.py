"""The precision of a forward pass that is gone back through."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ray_ns.config import decided

# With more channels per group the gradient in bfloat16 is as fast as in float32, or faster.
THIN = 4
BFLOAT16 = ("avx512_bf16", "amx_bf16", "bf16")  # what processors that compute in it call it; the last one is ARM's


def fast_precision(gpu: bool) -> str:
    """``bfloat16`` where the hardware computes in it, else ``float32``. ``gpu``: of the GPU, not of the processor.

    A processor without it emulates it, several times slower than float32. Of a GPU that this process cannot see,
    bfloat16 is assumed: every one since NVIDIA's Ampere (2020) has it.
    """
    if gpu:
        has = not torch.cuda.is_available() or torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities = torch.cpu.get_capabilities()
        has = any(capabilities.get(name) for name in BFLOAT16)
    return "bfloat16" if has else "float32"


@contextmanager
def autocast(precision: str, device: torch.device) -> Iterator[None]:
    """Autocast to ``precision`` (``float32``, ``bfloat16``); on a CPU, convolutions in thin groups compute in float32.

    Thin are those of at most ``THIN`` channels, depthwise ones above all. Their gradient in bfloat16 takes a CPU up to
    four times as long as in float32, so that networks full of them would train slower than without autocast
    (``benchmarks.precision``). A forward pass alone is faster in bfloat16 throughout: the teacher's is not this one.
    """
    low = decided(precision) == "bfloat16"
    with torch.autocast(device.type, torch.bfloat16, enabled=low):
        if low and device.type == "cpu":
            with _ThinInFloat32():
                yield
        else:
            yield


class _ThinInFloat32(TorchFunctionMode):
    """Sees the convolutions that are called, so that no network need be changed."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return (_conv2d if function is torch.conv2d else function)(*args, **(kwargs or {}))


def _conv2d(input: Tensor, weight: Tensor, *rest: Any, **named: Any) -> Tensor:
    """``torch.conv2d``, where it is in thin groups by way of float32."""
    channels = weight.shape[1]
    if channels <= THIN and channels < input.shape[-3]:
        with torch.autocast("cpu", enabled=False):
            return torch.conv2d(input.float(), weight, *rest, **named).bfloat16()
    return torch.conv2d(input, weight, *rest, **named)
