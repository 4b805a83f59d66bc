"""Forward passes that leave no trace, neither in a network nor in torch's generators."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Draws:
    """What torch's generators draw next: on the CPU, and on the GPU ``device``, where it is one."""

    device: torch.device
    on_cpu: Tensor
    on_gpu: Tensor | None

    @classmethod
    def next(cls, device: torch.device) -> "Draws":
        """Those that come now."""
        on_gpu = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        return cls(device, torch.get_rng_state(), on_gpu)

    def again(self) -> None:
        """Let them come now."""
        torch.set_rng_state(self.on_cpu)
        if self.on_gpu is not None:
            torch.cuda.set_rng_state(self.on_gpu, self.device)


@contextmanager
def untouched(network: nn.Module, draws: Draws | None = None) -> Iterator[Draws]:
    """While the block runs, ``network`` has copies of its buffers; afterwards it has its own ones, as they were.

    So batch norms in training normalise by the batch and follow nothing, alone or in a group of workers, and a graph
    made before or in the block can be gone back through after it. What is drawn is ``draws``, else what would come
    next, and it is given to the block: another one that is handed it draws the same. After the block the generators
    draw what they would have drawn without it.
    """
    homes = [(module, name, it) for module in network.modules() for name, it in module.named_buffers(recurse=False)]
    after = Draws.next(next(network.parameters()).device)
    begin = draws or after
    begin.again()
    try:
        for module, name, it in homes:
            setattr(module, name, it.clone())
        yield begin
    finally:
        after.again()
        for module, name, it in homes:
            setattr(module, name, it)
