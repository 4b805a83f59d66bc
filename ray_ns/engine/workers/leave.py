"""A training worker that is told to leave: by SIGTERM, as a machine that is drained sends it, or by Ray's controller.

It is noted here and heeded after the step. Only a process's main thread may set a signal's handler, and Ray Train runs
the training in another one. What a backend executes on the workers runs in the main thread, where Ray looks for signals
while the training runs.
"""

import secrets
import signal
import threading
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any

import ray
from ray.train.torch import TorchConfig

from ray_ns.engine import ray_private

told = threading.Event()
left = threading.Event()

# How long a step and a checkpoint may take; whoever needs longer is ended, and costs the steps since the one before.
SECONDS = 60.0

TorchBackend: Any = ray_private.torch_backend()


class _Backend(TorchBackend):
    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        # The driver may have no GPU, and a node may call its CPUs so: what torch sees on all workers decides.
        seen = worker_group.execute(listen)
        backend_config = replace(backend_config, backend="nccl" if backend_config.gpus and all(seen) else "gloo")
        if backend_config.meet_in is None:
            super().on_start(worker_group, backend_config)
        else:
            place = f"file://{backend_config.meet_in}/{secrets.token_hex(8)}"
            ray_private.meet(worker_group, backend_config.backend, backend_config.timeout_s, place)

    def on_shutdown(self, worker_group: Any, backend_config: Any) -> None:
        """Let workers leave that are well. Ray ends them so where it resizes their group, without a word to them."""
        if ray_private.are_well(worker_group):
            asked = worker_group.execute_async(leave)
            ray.wait(asked, num_returns=len(asked), timeout=SECONDS)  # a lost worker answers too, with an error
        super().on_shutdown(worker_group, backend_config)


@dataclass
class ListeningTorchConfig(TorchConfig):
    """Ray's ``TorchConfig``, whose workers note in ``told`` that they are to leave, in ``left`` that they have.

    ``meet_in``: a folder of this machine, where all workers are; None: they are anywhere, and meet over the network.
    ``gpus``: whether they are to train on GPUs.
    """

    meet_in: str | None = None
    gpus: bool = False

    @property
    def backend_cls(self) -> type[_Backend]:
        """What Ray sets the workers up with."""
        return _Backend


def listen() -> bool:
    """Note the first SIGTERM of this process; a second one ends it as Ray would have it. Whether torch sees a GPU."""
    import torch

    before = signal.getsignal(signal.SIGTERM)

    def note(number: int, frame: FrameType | None) -> None:
        signal.signal(number, before)
        told.set()

    signal.signal(signal.SIGTERM, note)
    return torch.cuda.is_available()


def leave() -> None:
    """Tell this process's training to leave, and return when it has, or after ``SECONDS``."""
    told.set()
    left.wait(SECONDS)
