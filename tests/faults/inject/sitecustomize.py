"""Kills the driver of a run at a chosen write to its store; on PYTHONPATH it reaches the driver and every worker.

``RAY_NS_FAULT`` is ``before|after:<regular expression of the key>:<n>``: at the n-th write of a matching key in one
process, before or after it, the process that holds the run's highest lease is killed with SIGKILL.
"""

import os
import re
import signal
import time
from pathlib import Path


def _install(when: str, pattern: str, nth: int) -> None:
    from ray_ns.store import objects

    seen = 0

    def reach(store: objects.LocalStore, key: str, moment: str) -> None:
        nonlocal seen
        if moment != when or not re.search(pattern, key):
            return
        seen += 1
        if seen == nth:
            import json

            held = sorted(Path(store.root, "driver").glob("0*.json"))[-1]
            os.kill(json.loads(held.read_text())["pid"], signal.SIGKILL)
            time.sleep(60)  # a worker waits here for Ray to end it with its driver

    for name in ("put", "put_if_absent"):
        original = getattr(objects.LocalStore, name)

        def write(self: objects.LocalStore, key: str, data: bytes, original=original):
            reach(self, key, "before")
            result = original(self, key, data)
            reach(self, key, "after")
            return result

        setattr(objects.LocalStore, name, write)


if "RAY_NS_FAULT" in os.environ:
    _when, _pattern, _nth = os.environ["RAY_NS_FAULT"].split(":")
    _install(_when, _pattern, int(_nth))
