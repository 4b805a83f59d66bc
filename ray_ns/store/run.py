"""The run directory: whose it is, and the corpora it was begun with.

``run.json`` holds the settings that decide the result, ``corpora.json`` the shards of every corpus with their
ordinals; both are written once. Below lie ``rounds/<n>/<stage>/``, ``control/<stage>/`` and ``report/``.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ray_ns.errors import InputError
from ray_ns.store import commit
from ray_ns.store.manifest import seal, unseal
from ray_ns.store.objects import ObjectStore

FORMAT = 1
RUN = "run.json"
CORPORA = "corpora.json"


def read(store: ObjectStore, key: str) -> dict[str, Any] | None:
    """``run.json`` or ``corpora.json``, or None where the run has not begun."""
    data = store.get(key)
    return None if data is None else unseal(data, key)


def begin(store: ObjectStore, config: Mapping[str, Any], corpora: Mapping[str, Any], fence: Callable[[], None]) -> None:
    """Write what the run is, where it is new."""
    fence()
    for key, value in ((CORPORA, {"corpora": corpora}), (RUN, {"config": config})):
        if not store.put_if_absent(key, seal({"format": FORMAT, **value})):
            raise InputError(
                f"{store.url} was begun by another driver meanwhile, with another {key}. Give a new run.dir, or run "
                f"the same command again to see what differs."
            )


def check_owner(store: ObjectStore, config: Mapping[str, Any], differences: Callable[[Any, Any], list[str]]) -> bool:
    """True where the run has begun with this config, False where it is new.

    Raises ``InputError`` with every setting that differs where it belongs to another config.
    """
    found = read(store, RUN)
    if found is None:
        return False
    if found["format"] != FORMAT:
        raise InputError(
            f"{store.url} was written in format {found['format']}, this version writes {FORMAT}. Give a new run.dir."
        )
    changed = differences(found["config"], config)
    if changed:
        raise InputError(
            f"{store.url} belongs to another config; it differs in: {'; '.join(changed)}. Give a new run.dir, or "
            f"put these settings back."
        )
    return True


def stages(store: ObjectStore) -> Iterator[str]:
    """Prefixes of the stages that have a plan, from a listing."""
    for key in store.list(""):
        if key.endswith("/plan.json"):
            yield key.removesuffix("/plan.json")


def verify(store: ObjectStore) -> Iterator[tuple[str, str | None]]:
    """Re-hash the whole run: every sealed object and all that commits name; each key with its fault, or None."""
    for key in store.list(""):
        name = key.rsplit("/", 1)[-1]
        sealed = key in {RUN, CORPORA} or name == "plan.json" or "/done/" in key
        if sealed and "/data/" not in key:
            try:
                unseal(store.get(key) or b"", key)
                yield key, None
            except commit.IntegrityError as error:
                yield key, str(error)
    committed = [key.removesuffix("/commit.json") for key in store.list("") if key.endswith("/commit.json")]
    for stage in committed:
        for key, fault in commit.verify(store, stage):
            yield key, None if fault is None else str(fault)
