"""Noisy Student self-training at pool scale, on Ray. From Python: ``run``, ``predict``, ``load_labels``."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray_ns.api import Result, load_labels, predict, run

__version__ = "0.1.0"
__all__ = ["Result", "__version__", "load_labels", "predict", "run"]


def __getattr__(name: str) -> Any:
    """The Python interface, loaded when it is first used: a worker or ``ray-ns -h`` does not wait for it."""
    if name in __all__:
        from ray_ns import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
