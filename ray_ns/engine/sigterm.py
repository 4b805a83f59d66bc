"""SIGTERM to a training worker, as a machine that is drained sends it: noted here, heeded after the step.

Only a process's main thread may set a signal's handler, and Ray Train runs the training in another one. What a backend
executes on the workers before they start runs in the main thread, where Ray looks for signals while the training runs.
"""

import signal
import threading
from types import FrameType
from typing import Any

from ray.train.torch.config import TorchConfig, _TorchBackend

told = threading.Event()


class _Backend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        worker_group.execute(listen)
        super().on_start(worker_group, backend_config)


class ListeningTorchConfig(TorchConfig):
    """Ray's ``TorchConfig``, whose workers note SIGTERM in ``told``."""

    @property
    def backend_cls(self) -> type[_Backend]:
        """What Ray sets the workers up with."""
        return _Backend


def listen() -> None:
    """Note the first SIGTERM of this process; a second one ends it as Ray would have it."""
    before = signal.getsignal(signal.SIGTERM)

    def note(number: int, frame: FrameType | None) -> None:
        signal.signal(number, before)
        told.set()

    signal.signal(signal.SIGTERM, note)
