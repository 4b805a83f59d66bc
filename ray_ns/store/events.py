"""What a run told, kept in it for machines: ``events.jsonl``, an event a line. FILES.md lists its fields.

A hint: it decides nothing, may be lost, and only the driver that holds the lease writes it. The newest 2,000 lines at
most are in ``events.jsonl``, which is written whole; full ones move to ``events-000001.jsonl`` and so on.
"""

import json
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from ray_ns.errors import RayNsError
from ray_ns.store.lease import BRIEF_SECONDS, Holder, fence
from ray_ns.store.objects import ObjectStore

EVENTS = "events.jsonl"
LINES = 2000
EVERY_SECONDS = 10.0
AT_ONCE = {"end", "error"}
FIELDS = (
    *("time", "event", "run", "stage", "done", "total", "unit", "rate", "seconds_left", "img_s", "loss"),
    *("note", "waiting", "seconds", "text", "exit_code"),
)


def full_key(number: int) -> str:
    """The key of the first full file (1), the second, and so on."""
    return f"events-{number:06}.jsonl"


class Events:
    """A sink of a reporter's events, which a thread writes each ten seconds and at the end of a stage.

    ``run``: the run's id, which every line has. ``holder``: who holds the lease; as long as it returns None, events
    wait (the newest ``LINES`` of them), so nothing is written about a run that is only read.
    """

    def __init__(self, store: ObjectStore, run: str, holder: Callable[[], Holder | None]) -> None:
        self._store = store.patient(BRIEF_SECONDS)
        self._run, self._holder = run, holder
        self._new: deque[bytes] = deque(maxlen=LINES)
        self._kept: list[bytes] | None = None  # the lines of events.jsonl; None: not read yet
        self._full = 0
        self._wake = threading.Event()
        self._ended = False
        self._thread: threading.Thread | None = None

    def __call__(self, event: Mapping[str, Any]) -> None:
        known = {"run": self._run, **event}
        line = {name: known[name] for name in FIELDS if known.get(name) is not None}
        self._new.append(json.dumps(line).encode() + b"\n")
        if self._thread is None:
            self._thread = threading.Thread(target=self._keep_writing, name="events", daemon=True)
            self._thread.start()
        if event["event"] in AT_ONCE:
            self._wake.set()

    def close(self) -> None:
        """Write what is left, unless the store needs longer than a few seconds for it."""
        self._ended = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(2 * BRIEF_SECONDS)

    def _keep_writing(self) -> None:
        ended = False
        while not ended:
            self._wake.wait(EVERY_SECONDS)
            self._wake.clear()
            ended = self._ended
            with suppress(RayNsError):  # of a store that fails, or a lease that is lost
                self._write()

    def _write(self) -> None:
        holder = self._holder()
        if holder is None or not self._new:
            return
        fence(self._store, holder)()
        if self._kept is None:
            self._kept = self._read()
        while self._new:
            self._kept.append(self._new.popleft())
        while len(self._kept) > LINES:
            self._store.put(full_key(self._full + 1), b"".join(self._kept[:LINES]))
            self._full += 1
            del self._kept[:LINES]
        self._store.put(EVENTS, b"".join(self._kept))

    def _read(self) -> list[bytes]:
        """The lines that earlier drivers left; also counts the full files."""
        while (full := self._store.open(full_key(self._full + 1))) is not None:
            full.close()
            self._full += 1
        found = self._store.get(EVENTS) or b""
        if self._full and (self._store.get(full_key(self._full)) or b"").startswith(found):
            return []  # a driver was killed after these lines had moved
        return [line + b"\n" for line in found.splitlines()]
