"""Whether all of a run is there and as it was written: the chain from ``run.json`` to every byte a commit names.

What must exist follows from what exists, never from a listing alone. ``run.json`` needs the corpora it began with, a
stage of a later generation those of that generation, one below ``rounds-3/`` the record that the run went on; files of
a stage need its plan; a plan needs the commits it names as its inputs; ``register/`` names every commit, the last one
too; a commit names its data, and so does a done record until the stage is committed. It is a fault if any of this is
missing, unreadable, not a file, or has another digest.

Some files may be missing, because their loss costs time and changes no result: done records (the part is made again;
once the stage is committed nobody reads them), checkpoints (the training resumes from an earlier one), everything in
``driver/``, ``events.jsonl``, ``register/`` itself, ``timing.json``, ``progress.json``, ``cost.json``, ``places.json``,
``README.md``, and data that no record names. A damaged epoch in ``driver/`` is a fault. Names that are not the run's,
such as copies by sync clients, are ignored.

``best/`` may be missing, or half there while it is being replaced; whoever reads it would take its two files for those
of the newest report, so it is a fault if they are not.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

from ray_ns.errors import InputError, IntegrityError
from ray_ns.seals import digest, sha256, unseal_with_digest
from ray_ns.store import commit, layout
from ray_ns.store.commit import Part
from ray_ns.store.fork import FORK
from ray_ns.store.lease import EPOCH
from ray_ns.store.objects import ObjectStore, UnreadableError

# Inputs in a plan that are digests of commits, or lists of them.
UPSTREAM = (
    *("teacher", "only", "labels", "before", "chosen", "selection", "begin", "network", "stages"),
    *("hashes", "duplicates"),
)
_REGISTER = re.compile(rf"{commit.REGISTER}[A-Za-z0-9/-]+\.json", re.ASCII)
_REPORT = re.compile(r"(?:pool-(\d+)/)?(?:rounds-(\d+)/)?report", re.ASCII)
_CONTINUED = re.compile(r"continued-(\d+)\.json", re.ASCII)
_ROUNDS = re.compile(r"(?:pool-\d+/)?rounds-(\d+)/", re.ASCII)
_GENERATION = re.compile(r"(?:corpora-|pool-|hashes-|duplicates-|ingest-)(\d+)(?:\.json$|/)", re.ASCII)
Found = Iterator[tuple[str, str | None]]
Sealed = tuple[dict[str, Any] | None, str | None, str | None]  # a record, its digest, what is wrong with it


def verify(store: ObjectStore, data: bool = True) -> Found:
    """The key of each record and object that was checked, with its fault, or None.

    ``data``: False checks the records alone, which takes no longer than to read them.

    Raises ``InputError`` where no run has begun, or one in a format that this version does not read.
    """
    names, fault = _listed(store)
    if fault is not None:
        yield fault
    elif layout.RUN not in names and not any(map(layout.stage_of, names)):
        raise InputError(f"{store.url}: no run has begun here (no {layout.RUN}). Give the run.dir of a run.")
    begun = _sealed(store, layout.RUN)[0]
    if begun is not None:
        layout.check_format(store, begun)
    registered: dict[str, str] = {}
    for key in filter(_REGISTER.fullmatch, names):
        value, _, wrong = _sealed(store, key)
        yield key, wrong
        if value is not None and commit.register_key(value["key"]) == key:
            registered[value["key"]] = value["digest"]
    generations = {int(found[1]) for found in map(_GENERATION.match, (*names, *registered)) if found}
    roots = [layout.RUN, *({FORK} & {*names, *registered}), *_continued({*names, *registered})]
    for key in (*roots, *map(layout.corpora_key, range(1, max(generations, default=1) + 1))):
        yield key, _as_registered(store, key, _sealed(store, key), registered)
    for key in filter(EPOCH.fullmatch, names):
        yield key, _sealed(store, key)[2]
    stages = sorted({stage for stage in map(layout.stage_of, (*names, *registered)) if stage})
    commits = {stage: _sealed(store, f"{stage}/commit.json") for stage in stages}
    known = {of for _, of, _ in commits.values() if of} | set(registered.values())
    for stage in stages:
        key = f"{stage}/commit.json"
        committed = commits[stage] if key in names or key in registered else None
        yield from _plan(store, stage, known, committed and committed[0])
        yield from _done(store, stage, data and committed is None)
        if committed is not None:
            yield key, _as_registered(store, key, committed, registered)
            for part in committed[0]["parts"] if committed[0] and data else ():
                yield from _data(store, part)
    if data:
        yield from _best(store, names, {stage: value for stage, (value, _, _) in commits.items() if value is not None})


def _listed(store: ObjectStore) -> tuple[set[str], tuple[str, str] | None]:
    try:
        return set(store.list("")), None
    except UnreadableError as error:
        return set(), (str(error).partition(": ")[0].removeprefix(f"{store.url}/"), str(error))


def _sealed(store: ObjectStore, key: str) -> Sealed:
    try:
        data = store.get(key)
        if data is not None:
            return *unseal_with_digest(data, key), None
    except (IntegrityError, UnreadableError) as error:
        return None, None, str(error)
    return None, None, f"{key} in {store.url} is missing, but other files were made with it. Restore it from a backup."


def _continued(names: Set[str]) -> list[str]:
    """The records that a run needs which went on for more rounds: as many as there are prefixes of its endings."""
    numbers = [int(found[1]) for found in map(_CONTINUED.fullmatch, names) if found]
    endings = {found[1] for found in map(_ROUNDS.match, filter(layout.stage_of, names)) if found}
    return list(map(layout.continued_key, range(1, max(len(endings), *numbers, 0) + 1)))


def _plan(store: ObjectStore, stage: str, known: set[str], committed: Mapping[str, Any] | None) -> Found:
    """The plan of a stage. ``known``: digests of all commits; ``committed``: its own commit, where that can be read."""
    key = f"{stage}/plan.json"
    plan, _, wrong = _sealed(store, key)
    if plan is not None:
        if committed is not None and committed["inputs"] != digest(plan["inputs"]):
            wrong = f"{key} in {store.url} is not what {stage}/commit.json was made from. Restore both from a backup."
        for name, value in plan["inputs"].items():
            made_from = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
            lost = [it for it in made_from if it is not None and it not in known] if name in UPSTREAM else []
            if lost:
                wrong = (
                    f"{key} in {store.url}: the stage was made from the commit {str(lost[0])[:12]} ({name}), which no "
                    f"stage of the run has. Restore that stage from a backup, or delete {stage} and run again."
                )
    yield key, wrong


def _as_registered(store: ObjectStore, key: str, found: Sealed, registered: Mapping[str, str]) -> str | None:
    """The fault of a record, or None. Its digest must be the one in the register, if that has one."""
    _, of, wrong = found
    if of is not None and registered.get(key, of) != of:
        return f"{key} in {store.url} is not the one that was registered ({registered[key]}). Restore it from a backup."
    return wrong


def _done(store: ObjectStore, stage: str, data: bool) -> Found:
    """The done records of a stage; ``data``: also their data, which count while the stage is not committed."""
    for key in commit.done_keys(store, stage):
        record, _, wrong = _sealed(store, key)
        yield key, wrong
        if record is not None and data:
            yield from _data(store, record)


def _data(store: ObjectStore, record: Mapping[str, Any]) -> Found:
    """Every data object of a commit's part or a done record, hashed again."""
    for stored in Part.from_json(record).objects.values():
        try:
            stored.read(store)
            yield stored.key, None
        except (IntegrityError, UnreadableError) as error:
            yield stored.key, str(error)


def _best(store: ObjectStore, names: set[str], commits: Mapping[str, Mapping[str, Any]]) -> Found:
    """The files in ``best/`` that the commit of the best network names; nothing where it is not there as a whole."""
    reports = sorted((int(of[1] or 1), int(of[2] or 1), of[0]) for of in map(_REPORT.fullmatch, commits) if of)
    if not reports or f"{layout.BEST}config.json" not in names:
        return
    try:
        (report,) = Part.from_json(commits[reports[-1][2]]["parts"][0]).objects.values()
        folder = str(json.loads(report.read(store))["best_model"])
        network = Part.from_json(commits[folder.partition("/data/")[0]]["parts"][0])
    except (IntegrityError, UnreadableError, KeyError, ValueError):
        return  # the report or the network is a fault already
    for name, stored in network.objects.items():
        key, wrong = f"{layout.BEST}{name}", None
        try:
            if sha256(store.get(key) or b"") != stored.sha256:
                wrong = f"{key} in {store.url} is not {stored.key}, which the report names. Run again to write it anew."
        except (IntegrityError, UnreadableError) as error:
            wrong = str(error)
        yield key, wrong
