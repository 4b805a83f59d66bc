"""How a command ends that is run in this process (the fixture ``ray_ns``)."""

from collections.abc import Callable
from typing import NamedTuple


class Left(NamedTuple):
    """Exit code, stdout and stderr."""

    code: int
    out: str
    err: str


Call = Callable[..., Left]
