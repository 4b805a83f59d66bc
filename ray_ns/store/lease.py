"""One driver at a time: an epoch taken by put-if-absent, and a heartbeat that shows whether its holder lives.

``driver/<epoch>.json`` says which lease holds an epoch; the highest epoch holds the run. A deleted run begins again at
epoch 1, so an epoch alone does not identify a driver. The holder rewrites ``driver/heartbeat.json`` every two seconds,
with its progress for ``ray-ns status``. A heartbeat is stale when it was watched and did not change for
``STALE_SECONDS``, or when its process on this host is gone. The clocks of two hosts are never compared.
"""

import contextlib
import re
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ray_ns.errors import IntegrityError, RayNsError, ResumableError
from ray_ns.observe import FIGURES
from ray_ns.seals import seal, unseal
from ray_ns.store import hints
from ray_ns.store.objects import ObjectStore
from ray_ns.store.processes import runs_here, this_process

BEAT_SECONDS = 2.0
STALE_SECONDS = 30.0
BRIEF_SECONDS = 5.0  # a heartbeat that takes longer is skipped, so that the driver never waits for it when it ends
HEARTBEAT = "driver/heartbeat.json"
EPOCH = re.compile(r"driver/(\d{6,})\.json", re.ASCII)


@dataclass(frozen=True)
class Holder:
    """Who may write to a run: an epoch, and the id of the lease that took it."""

    epoch: int
    lease: str


class LeaseLostError(ResumableError):
    """The lease is lost: nothing more may be written on its behalf."""


def heartbeat(store: ObjectStore) -> dict[str, Any]:
    """The last heartbeat; empty where there is none or it is damaged. It is a hint, without a seal."""
    beat = hints.read(store, HEARTBEAT)
    numbers, words = ["epoch"], []
    if not beat.get("released"):
        numbers.append("time")
    if "stage" in beat:
        numbers += ["done", "total", *(["rate", "seconds_left"] if beat.get("seconds_left") is not None else [])]
        numbers += [name for name in ("img_s", *FIGURES) if name in beat]
        words = ["stage", "unit", *(name for name in ("note", "waiting") if name in beat)]
    right = all(hints.number(beat.get(name)) for name in numbers) and all(isinstance(beat.get(it), str) for it in words)
    return {"seconds_left": None, **beat} if right and "stage" in beat else beat if right else {}


class Lease:
    """The right to write to a run. Taken at the first write, so a finished run can be read without it.

    ``holder``: None until the lease is taken.
    """

    def __init__(self, store: ObjectStore, stale_seconds: float = STALE_SECONDS) -> None:
        self.store = store
        self._brief = store.patient(BRIEF_SECONDS)
        self.holder: Holder | None = None
        self._stale_seconds = stale_seconds
        self._progress: Callable[[], Mapping[str, Any]] = dict
        self._lost: Callable[[RayNsError], None] = lambda error: None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def check(self) -> None:
        """Take the lease, or make sure of it. ``ResumableError`` where another driver is at work or has taken over."""
        self.held()

    def held(self) -> Holder:
        """The same as ``check``; returns the holder."""
        if self.holder is None:
            self.holder = self._take()
        else:
            fence(self.store, self.holder)()
        return self.holder

    def beat_with(self, progress: Callable[[], Mapping[str, Any]]) -> None:
        """Let every heartbeat carry what ``progress`` returns (JSON values)."""
        self._progress = progress

    def when_lost(self, tell: Callable[[RayNsError], None]) -> None:
        """Call ``tell``, in the heartbeat's thread, within seconds after the lease is lost."""
        self._lost = tell

    def release(self) -> None:
        """Stop the heartbeat and mark it as released. Does nothing where the lease was never taken."""
        if self._thread is not None:
            self._stop.set()
            self._thread.join()
            self._thread = None
            assert self.holder is not None
            with contextlib.suppress(ResumableError, IntegrityError):
                fence(self._brief, self.holder)()
                hints.write(self._brief, HEARTBEAT, {**vars(self.holder), "released": True})

    def _take(self) -> Holder:
        epoch = self._highest()
        if epoch and not self._is_gone(epoch):
            raise ResumableError(
                f"another driver is at work on {self.store.url} (epoch {epoch}). Wait for it, or stop it; "
                f"see 'ray-ns status {self.store.url}'."
            )
        holder = Holder(epoch + 1, uuid.uuid4().hex)
        if not self.store.put_if_absent(_epoch_key(epoch + 1), seal({**vars(holder), **this_process()})):
            raise ResumableError(f"another driver has just started on {self.store.url} (epoch {epoch + 1}).")
        self.store.sweep()
        self._beat(holder)
        self._thread = threading.Thread(target=self._keep_beating, args=[holder], name="heartbeat", daemon=True)
        self._thread.start()
        return holder

    def _highest(self) -> int:
        """The highest epoch taken: a listing gives a first guess, then each epoch above it is asked for."""
        listed = filter(None, map(EPOCH.fullmatch, self.store.list("driver/")))
        epoch = max((int(found[1]) for found in listed), default=0)
        while self.store.get(_epoch_key(epoch + 1)) is not None:
            epoch += 1
        return epoch

    def _is_gone(self, epoch: int) -> bool:
        beat = first = heartbeat(self.store)
        key = _epoch_key(epoch)
        holder = unseal(self.store.get(key) or b"", key)
        if beat.get("released") and beat.get("epoch") == epoch and beat.get("lease") == holder["lease"]:
            return True
        if holder["host"] == this_process()["host"]:
            return not runs_here(holder)
        deadline = time.monotonic() + self._stale_seconds
        while time.monotonic() < deadline:
            time.sleep(min(BEAT_SECONDS, self._stale_seconds / 4))
            if heartbeat(self.store) != first:
                return False
        return True

    def _beat(self, holder: Holder) -> None:
        value = {**vars(holder), "time": time.time(), **this_process(), **self._progress()}
        hints.write(self._brief, HEARTBEAT, value)

    def _keep_beating(self, holder: Holder) -> None:
        held = fence(self._brief, holder)
        while not self._stop.wait(BEAT_SECONDS):
            try:
                held()
                self._beat(holder)
            except (LeaseLostError, IntegrityError) as error:
                self._lost(error)
                break
            except ResumableError:
                continue  # the store failed, and may accept the next one


def _epoch_key(epoch: int) -> str:
    return f"driver/{epoch:06d}.json"


def fence(store: ObjectStore, holder: Holder) -> Callable[[], None]:
    """A check to call before every write on behalf of ``holder``: raises ``LeaseLostError`` once the lease is lost.

    It is lost when another driver has taken over, and when the run's directory was deleted or begun anew.
    """
    own, next_one = _epoch_key(holder.epoch), _epoch_key(holder.epoch + 1)

    def check() -> None:
        found = store.get(own)
        if found is None:
            raise LeaseLostError(
                f"{store.url}/{own} is gone: somebody has deleted this driver's right to write to the run, or the run. "
                f"This driver stops. Run the same command again to begin where what is left ends."
            )
        if unseal(found, own)["lease"] != holder.lease:
            raise LeaseLostError(
                f"{store.url} was deleted and begun anew by another driver; this one stops. "
                f"See 'ray-ns status {store.url}'."
            )
        if store.get(next_one) is not None:
            raise LeaseLostError(
                f"another driver has taken over {store.url} (epoch {holder.epoch + 1}, this one was {holder.epoch}); "
                f"this one stops. See 'ray-ns status {store.url}'."
            )

    return check
