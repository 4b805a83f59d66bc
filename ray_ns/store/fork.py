"""A run that was forked from another one: its own records, and the other run's data by reference.

``fork.json`` at the root of such a run names the other one. Data objects of stages are content-addressed, so one that
the run has not of its own is read from the other run. Everything else is its own: records, listings and all writes.
"""

from collections.abc import Iterator
from typing import BinaryIO

from ray_ns.errors import IntegrityError
from ray_ns.seals import unseal
from ray_ns.store.objects import STORE_SECONDS, Aged, ObjectStore, open_store

FORK = "fork.json"
MADE_ANEW = "Restore it from a backup, or delete its stage's folder and run again to make it anew."


class ForkedStore:
    """The store of a forked run: ``own``, and below it the data of ``other``, which may be forked itself."""

    def __init__(self, own: ObjectStore, other: ObjectStore) -> None:
        self.own, self.other = own, other
        self.url = own.url

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and (other.own, other.other) == (self.own, self.other)

    def __hash__(self) -> int:
        return hash((self.own, self.other))

    def patient(self, seconds: float) -> "ForkedStore":
        """The same, where no call to either store is tried for longer than ``seconds``."""
        return ForkedStore(self.own.patient(seconds), self.other.patient(seconds))

    def get(self, key: str) -> bytes | None:
        """The object's bytes: its own, or those of the other run where it is data."""
        found = self.own.get(key)
        return self.other.get(key) if found is None and _is_data(key) else found

    def open(self, key: str) -> BinaryIO | None:
        """The object as a file: its own, or that of the other run where it is data."""
        found = self.own.open(key)
        return self.other.open(key) if found is None and _is_data(key) else found

    def put(self, key: str, data: bytes) -> None:
        """Write or replace its own object."""
        self.own.put(key, data)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Write its own object if it has none under the key."""
        return self.own.put_if_absent(key, data)

    def delete(self, key: str) -> None:
        """Remove its own object."""
        self.own.delete(key)

    def sweep(self) -> None:
        """Remove its own temporary files."""
        self.own.sweep()

    def list(self, prefix: str) -> Iterator[str]:
        """The names of its own objects."""
        return self.own.list(prefix)

    def ages(self, prefix: str) -> Iterator[Aged]:
        """Its own objects with their ages."""
        return self.own.ages(prefix)

    def prune(self, folder: str) -> None:
        """Remove its own empty folders."""
        self.own.prune(folder)


def _is_data(key: str) -> bool:
    return "/data/" in key


def chain(store: ObjectStore) -> Iterator[ObjectStore]:
    """The run's own store, then that of the run it was forked from, then that one's, and so on."""
    while isinstance(store, ForkedStore):
        yield store.own
        store = store.other
    yield store


def open_run(url: str, seconds: float = STORE_SECONDS) -> ObjectStore:
    """The store of the run at ``url``, over the runs it was forked from. See ``objects.open_store``.

    Raises ``IntegrityError`` where its ``fork.json`` is damaged, or the runs are forked in a circle.
    """
    return _opened(open_store(url, seconds), seconds, ())


def _opened(own: ObjectStore, seconds: float, above: tuple[str, ...]) -> ObjectStore:
    data = own.get(FORK)
    if data is None:
        return own
    other = str(unseal(data, f"{own.url}/{FORK}")["from"])
    if other in (*above, own.url):
        raise IntegrityError(f"{own.url}/{FORK} names {other}, which was itself forked from this run. Restore it.")
    return ForkedStore(own, _opened(open_store(other, seconds), seconds, (*above, own.url)))


def holder(store: ObjectStore, key: str) -> ObjectStore:
    """The one of the run's stores that holds the object ``key``; its own where none does."""
    stores = list(chain(store))
    return next((it for it in stores if it.get(key) is not None), stores[0])


def place_and_mend(store: ObjectStore, key: str) -> tuple[str, str]:
    """In which run the object ``key`` is damaged or missing, and what helps: the middle and the end of an error."""
    if not isinstance(store, ForkedStore):
        return store.url, MADE_ANEW
    held = holder(store, key)
    if held.get(key) is None:
        return held.url, (
            f"This run was forked from {store.other.url}, which does not hold it either. Put that run back there as it "
            f"was, or restore the file from a backup."
        )
    if held is store.own:
        return held.url, MADE_ANEW
    return held.url, f"{store.url} was forked from that run. {MADE_ANEW.replace('folder', 'folder there')}"
