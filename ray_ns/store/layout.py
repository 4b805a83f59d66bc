"""The run directory: whose it is, and the corpora it was begun with.

``run.json`` holds the settings that decide the result, ``corpora-1.json`` the shards of every corpus with their
ordinals; both are written once. When the user has the run take in a pool that has grown, ``corpora-2.json`` follows,
and so on. Below lie ``rounds/<n>/<stage>/``, ``control/<stage>/`` and ``report/``; what learns from a grown pool lies
below ``pool-2/`` and so on.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ray_ns.errors import InputError, IntegrityError
from ray_ns.seals import digest, seal, unseal
from ray_ns.store import commit
from ray_ns.store.objects import ObjectStore

FORMAT = 1
RUN = "run.json"
# What belongs to a stage, by its place in the run; a copy that somebody has made of one has another name.
_STAGE = re.compile(
    r"((?:pool-\d+/)?(?:(?:rounds/\d+|control)/)?[a-z]+(?:-\d{4}|-[0-9a-f]{12})?(?:/[a-z]+)?)"
    r"/(?:plan\.json|commit\.json|(?:done|data)/.+)",
    re.ASCII,
)


def corpora_key(generation: int) -> str:
    """Where the corpora of a generation (1: those the run began with) are written."""
    return f"corpora-{generation}.json"


def place(generation: int) -> str:
    """Prefix of the stages that depend on the pool of a generation."""
    return "" if generation == 1 else f"pool-{generation}/"


def read(store: ObjectStore, key: str) -> dict[str, Any] | None:
    """A sealed object at the root of the run, or None where there is none."""
    data = store.get(key)
    return None if data is None else unseal(data, key)


def generations(store: ObjectStore) -> list[dict[str, Any]]:
    """The corpora of every generation, each a mapping of name to shards."""
    found: list[dict[str, Any]] = []
    while (corpora := read(store, corpora_key(len(found) + 1))) is not None:
        found.append(corpora["corpora"])
    return found


@dataclass(frozen=True)
class Classes:
    """How many classes a run has and, where its labelled images say so, their names in the order of their numbers."""

    count: int
    names: tuple[str, ...] | None = None


def begin(
    store: ObjectStore,
    config: Mapping[str, Any],
    corpora: Mapping[str, Any],
    fence: Callable[[], None],
    classes: Classes | None,
) -> None:
    """Write what the run is, where it is new. ``classes``: None where nothing is learnt (an ingest)."""
    fence()
    _write(store, corpora_key(1), {"corpora": corpora})
    _write(store, RUN, {"config": config, "classes": vars(classes) if classes else None})


def settings(store: ObjectStore) -> dict[str, Any] | None:
    """The settings that a run began with, None where none has begun."""
    found = read(store, RUN)
    return None if found is None else dict(found["config"])


def classes(store: ObjectStore) -> Classes:
    """The classes of a run that has begun."""
    found = (read(store, RUN) or {})["classes"]
    return Classes(found["count"], tuple(found["names"]) if found["names"] else None)


def grow(store: ObjectStore, corpora: Mapping[str, Any], generation: int, fence: Callable[[], None]) -> None:
    """Write the corpora of a further generation."""
    fence()
    _write(store, corpora_key(generation), {"corpora": corpora})
    commit.register(store, corpora_key(generation), digest({"format": FORMAT, "corpora": corpora}))


def _write(store: ObjectStore, key: str, value: Mapping[str, Any]) -> None:
    if not store.put_if_absent(key, seal({"format": FORMAT, **value})):
        raise InputError(
            f"{store.url} was begun by another driver meanwhile, with another {key}. Give a new run.dir, or run the "
            f"same command again to see what differs."
        )


def check_owner(store: ObjectStore, config: Mapping[str, Any], differences: Callable[[Any, Any], list[str]]) -> bool:
    """True where the run has begun with this config, False where it is new.

    Raises ``InputError`` with every setting that differs where it belongs to another config.
    """
    found = read(store, RUN)
    if found is None:
        refuse_lost(store)
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


def refuse_lost(store: ObjectStore) -> None:
    """Raise ``IntegrityError`` where ``run.json`` is missing and the run is not: it has commits."""
    if any(store.list(commit.REGISTER)):
        raise IntegrityError(f"{store.url}: {RUN} is missing, and the run has commits. Restore it from a backup.")


def last_stage(store: ObjectStore) -> str:
    """Prefix of the stage whose commit ends the work: the report, or the newest generation's shards of an ingest."""
    newest = max(len(generations(store)), 1)
    ingests = "ingest" in (read(store, RUN) or {"config": {}})["config"]
    return f"ingest-{newest:04d}" if ingests else f"{place(newest)}report"


def stage_of(name: str) -> str | None:
    """The stage that a file belongs to, None where it is no stage's plan, commit, done record or data."""
    found = _STAGE.fullmatch(name)
    return found[1] if found else None


def stages(store: ObjectStore) -> Iterator[str]:
    """Prefixes of the stages that have a plan, from a listing."""
    for key in store.list(""):
        stage = stage_of(key)
        if stage is not None and key == f"{stage}/plan.json":
            yield stage
