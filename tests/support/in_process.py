"""How a command ends that is run in this process (the fixture ``ray_ns``)."""

import re
from collections.abc import Callable
from typing import NamedTuple


class Left(NamedTuple):
    """Exit code, stdout, and stderr ``undated``."""

    code: int
    out: str
    err: str


def undated(log: str, code: int | None = None) -> str:
    """``log`` without the time before every line, and without the exit code at its end, which has to be ``code``."""
    text = re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (?=.)", "", log, flags=re.MULTILINE)
    said = re.search(r" \(exit code (\d+)\)\n\Z", text)
    assert said is None or code is None or int(said[1]) == code, log
    return text.removesuffix(said[0]) + "\n" if said else text


Call = Callable[..., Left]
