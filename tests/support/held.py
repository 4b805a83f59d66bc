"""A run that a driver of these tests holds, where a lease with its heartbeat is of no use."""

from ray_ns.seals import seal
from ray_ns.store.lease import Holder
from ray_ns.store.objects import ObjectStore

HOLDER = Holder(1, "0" * 32)


def hold(store: ObjectStore, holder: Holder = HOLDER) -> Holder:
    """Write down that ``holder`` holds the run."""
    store.put(f"driver/{holder.epoch:06d}.json", seal(vars(holder)))
    return holder
