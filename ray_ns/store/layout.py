"""The run directory: its settings, its corpora, and where its stages are.

``run.json`` holds the settings that decide the result, ``corpora-1.json`` the shards of every corpus with their
ordinals; both are written once. With ``--grow`` a run takes in a pool that has grown, and ``corpora-2.json`` follows,
and so on. A run that was forked from another one has a ``fork.json`` too (``store.fork``). The stages are in
``rounds/<n>/<stage>/``, ``control/<stage>/`` and ``report/``; those of a grown pool are below ``pool-2/`` and so on.
A run that goes on for more rounds than it began with has a ``continued-1.json``, which names how many, and so on; its
control and its report are then below ``rounds-3/``, and those before stay.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray_ns.errors import InputError, IntegrityError
from ray_ns.seals import digest, seal, unseal
from ray_ns.store import commit
from ray_ns.store.fork import FORK, ForkedStore
from ray_ns.store.objects import ObjectStore

FORMAT = 6  # of new runs; 1 names every setting (``config.results``)
READ = (1, 2, 3, 4, 5, 6)
READABLE = 3  # from this format on other programs read the tables as they are, and evaluations keep their predictions
FAITHFUL = (
    4  # from this format on the recipes are those of the papers (``config.schema.earlier``), and the control's too
)
EXACT = (
    5  # from this format on "better" and "worse" need McNemar's exact test beside the interval (``evaluate.verdict``)
)
BESIDE = 6  # from this format on controls are compared with a method's one student, and none repeats it (``methods``)
RUN = "run.json"
PLACES = "places.json"  # a hint: where the corpora lay when a driver last opened them
BEST = "best/"  # the best network at a place of a fixed name (``export.best``), never read as truth
CONTROLS = r"control(?:-[a-z]+)*"  # the folders of the fair control's turn and of others
# Files of a stage, by their names in full: copies that sync clients and users make have other names.
_STAGE = re.compile(
    rf"((?:pool-\d+/)?(?:rounds-\d+/)?(?:(?:rounds/\d+|{CONTROLS})/)?[a-z]+(?:-\d{{4}}|-[0-9a-f]{{12}})?(?:/[a-z]+)?)"
    r"/(?:plan\.json|commit\.json|(?:done|data)/.+)",
    re.ASCII,
)


def corpora_key(generation: int) -> str:
    """The key of the corpora of a generation (1: those the run began with)."""
    return f"corpora-{generation}.json"


def place(generation: int) -> str:
    """Prefix of the stages that depend on the pool of a generation."""
    return "" if generation == 1 else f"pool-{generation}/"


def continued_key(number: int) -> str:
    """The key of the record that the run goes on for more rounds, for the first time (1), the second, and so on."""
    return f"continued-{number}.json"


def ending(rounds: int | None) -> str:
    """Prefix of the control and the report of a run that goes on for so many rounds; None: as many as it began with."""
    return "" if rounds is None else f"rounds-{rounds}/"


def read(store: ObjectStore, key: str) -> dict[str, Any] | None:
    """A sealed object at the root of the run, or None where there is none."""
    data = store.get(key)
    return None if data is None else unseal(data, key)


def record(store: ObjectStore) -> dict[str, Any] | None:
    """``run.json``: the run's ``format``, ``config`` and ``classes``; None where none has begun.

    Raises ``InputError`` where it is of a format that this version does not read.
    """
    found = read(store, RUN)
    if found is not None:
        check_format(store, found)
    return found


def check_format(store: ObjectStore, found: Mapping[str, Any]) -> None:
    """Raise ``InputError`` where this version does not read the format of ``found``, which is a run's ``run.json``."""
    if found["format"] not in READ:
        raise InputError(
            f"{store.url} was written in format {found['format']}; this version of ray-ns reads format "
            f"{READ[0]} to {READ[-1]}. Use the version that wrote it, or a newer one; or give a new run.dir."
        )


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
    format: int = FORMAT,
    later: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write the records of a new run. ``classes``: None where nothing is learnt (an ingest).

    A forked run takes over the ``format`` of the other one, and the corpora of its ``later`` generations.
    """
    fence()
    records: dict[str, dict[str, Any]] = {
        corpora_key(at): {"format": format, "corpora": it} for at, it in enumerate((corpora, *later), 1)
    }
    if isinstance(store, ForkedStore):
        records = {FORK: {"from": store.other.url}} | records
    for key, value in records.items():
        _write(store, key, value)
    _write(store, RUN, {"format": format, "config": config, "classes": vars(classes) if classes else None})
    records.pop(corpora_key(1))  # every run has them
    for key, value in records.items():  # now, since what is registered without run.json has lost it
        commit.register(store, key, digest(value))


def settings(store: ObjectStore) -> dict[str, Any] | None:
    """The settings that the run has: those it began with, and the rounds it went on for. None where none has begun."""
    found = record(store)
    if found is None:
        return None
    config, rounds = dict(found["config"]), continued(store)
    return config | ({"run": {**config["run"], "rounds": rounds[-1]}} if rounds else {})


def continued(store: ObjectStore) -> list[int]:
    """For how many rounds the run went on, each time; empty where it has those that it began with."""
    found: list[int] = []
    while (value := read(store, continued_key(len(found) + 1))) is not None:
        found.append(int(value["rounds"]))
    return found


def go_on(store: ObjectStore, rounds: int, fence: Callable[[], None]) -> None:
    """Write down that the run goes on for so many rounds in all."""
    begun = record(store)
    assert begun is not None, "only a run that has begun goes on"
    key, value = continued_key(len(continued(store)) + 1), {"format": begun["format"], "rounds": rounds}
    fence()
    _write(store, key, value)
    commit.register(store, key, digest(value))


def classes(store: ObjectStore) -> Classes:
    """The classes of a run that has begun."""
    found = (read(store, RUN) or {})["classes"]
    return Classes(found["count"], tuple(found["names"]) if found["names"] else None)


def grow(store: ObjectStore, corpora: Mapping[str, Any], generation: int, fence: Callable[[], None]) -> None:
    """Write the corpora of a further generation, in the format that the run was begun in."""
    begun = record(store)
    assert begun is not None, "grow is for runs that have begun"
    value = {"format": begun["format"], "corpora": corpora}
    fence()
    _write(store, corpora_key(generation), value)
    commit.register(store, corpora_key(generation), digest(value))


def _write(store: ObjectStore, key: str, value: Mapping[str, Any]) -> None:
    if not store.put_if_absent(key, seal(value)):
        raise InputError(
            f"{store.url} was begun by another driver meanwhile, with another {key}. Give a new run.dir, or run the "
            f"same command again to see what differs."
        )


def check_owner(
    store: ObjectStore, differences: Callable[[Mapping[str, Any]], list[str]], instead: str = "a new run.dir"
) -> bool:
    """True if the run was begun with the present config, False if it is new.

    ``differences``: takes the settings that the run began with and returns, in words, every one that differs now.
    Raises ``InputError`` with them where there are any; ``instead``: what the user can give for another run.
    """
    begun = settings(store)
    if begun is None:
        refuse_lost(store)
        return False
    changed = differences(begun)
    if changed:
        raise InputError(
            f"{store.url} belongs to another config; it differs in: {'; '.join(changed)}. Give {instead}, or "
            f"put these settings back."
        )
    return True


def refuse_lost(store: ObjectStore) -> None:
    """Raise ``IntegrityError`` where ``run.json`` is missing although the run has commits."""
    if any(store.list(commit.REGISTER)):
        raise IntegrityError(f"{store.url}: {RUN} is missing, and the run has commits. Restore it from a backup.")


def last_stage(store: ObjectStore) -> str:
    """Prefix of the stage whose commit ends the run: the report; of an ingest its newest shards, else its labels."""
    newest = max(len(generations(store)), 1)
    config = (read(store, RUN) or {"config": {}})["config"]
    if "predict" in config:
        return "label"
    if "ingest" in config:
        return f"ingest-{newest:04d}"
    rounds = continued(store)
    return f"{place(newest)}{ending(rounds[-1] if rounds else None)}report"


def stage_of(name: str) -> str | None:
    """The stage that a file belongs to, None unless it is a stage's plan, commit, done record or data."""
    found = _STAGE.fullmatch(name)
    return found[1] if found else None


def stages(store: ObjectStore) -> Iterator[str]:
    """Prefixes of the stages that have a plan, from a listing."""
    for key in store.list(""):
        stage = stage_of(key)
        if stage is not None and key == f"{stage}/plan.json":
            yield stage
