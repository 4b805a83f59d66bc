"""What lies in a run and nothing names: left by writers that were killed, lost a race, or were interrupted.

Nothing is taken for a leftover but what is the run's by its name and by its place, in a stage whose plan says that it
lies there. All else may be the user's. What a commit, a record of a finished part or a pointer names is none, and
neither are records and hints. Where a record is missing or damaged, it is unknown what it named, so nothing is judged.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ray_ns.errors import IntegrityError
from ray_ns.seals import digest
from ray_ns.store import checkpoint, layout
from ray_ns.store.commit import Output, find_commit
from ray_ns.store.objects import TEMPORARY, ObjectStore
from ray_ns.store.verify import verify

DAY = 86_400.0  # seconds; younger leftovers stay, for a worker of a driver that was killed may write still
DELETERS = 16  # threads: in S3 each deletion takes several round trips, as it is fenced
RAYS = ".ray"  # where Ray Train keeps records of its own on a cluster (``engine.run``)
# A stage's prefix is checked against its plan. Ray names its folders and files in these letters.
_TEMPORARY = re.compile(rf"{re.escape(TEMPORARY)}/[0-9a-f]{{32}}", re.ASCII)
_RAYS = re.compile(rf"{re.escape(RAYS)}/[A-Za-z0-9_=+@.,/-]+", re.ASCII)
_SEEN = re.compile(r"driver/seen-[0-9a-f]{12}(?:-\d+)?", re.ASCII)  # ``engine.nodes``
_DATA = re.compile(r"(.+)/data/\d{6,}-[0-9a-f]{16}/([^/]+)", re.ASCII)
_ASIDE = re.compile(r"(.+)/undecided/\d{6,}-[0-9a-f]{16}\.parquet", re.ASCII)  # ``engine.workers.selecting``
_CHECKPOINT = re.compile(r"(.+)/checkpoints/[0-9a-f]{16}/[^/]+", re.ASCII)
_OF_STAGE = re.compile(r"(.+)/(?:(?:plan|commit|timing|cost|progress)\.json|README\.md|done/\d{6,}\.json)", re.ASCII)
_OF_RUN = re.compile(
    r"(?:run|fork|places|corpora-\d+|continued-\d+)\.json|README\.md|events[\w.-]*\.jsonl"
    r"|best/.+|register/.+\.json|driver/(?:\d{6,}|heartbeat)\.json",
    re.ASCII,
)


@dataclass(frozen=True)
class Leftover:
    """An object that nothing names: its size in bytes, its age in seconds, the folder it lies in, and why it may go."""

    key: str
    size: int
    seconds: float
    folder: str
    why: str


@dataclass(frozen=True)
class Found:
    """The leftovers that are older than a ``DAY``, the ``young`` ones, and keys that are not the run's by name."""

    old: tuple[Leftover, ...]
    young: tuple[Leftover, ...]
    unknown: tuple[str, ...]


def survey(store: ObjectStore, names: Set[str]) -> Found:
    """What may go of a run's own objects; nothing of a run that it was forked from. Reads only.

    ``names``: what data objects of stages are called; those that a record names count too. Raises ``IntegrityError``
    where a record is missing or damaged, ``InputError`` where no run has begun.
    """
    listed = list(store.ages(""))  # before the records, so that what is recorded meanwhile is named
    for _, fault in verify(store, data=False):
        if fault is not None:
            raise IntegrityError(f"{fault} What it named is unknown, so nothing is removed.")
    run = _Run(store, {it.key for it in listed}, names)
    found, unknown = [], []
    for it in listed:
        left = run.left(it.key)
        if left is not None:
            found.append(Leftover(it.key, it.size, it.seconds, *left))
        elif not run.knows(it.key):
            unknown.append(it.key)
    old, young = ([it for it in found if (it.seconds >= DAY) == aged] for aged in (True, False))
    return Found(tuple(old), tuple(young), tuple(unknown))


def remove(store: ObjectStore, leftovers: Iterable[Leftover], fence: Callable[[], None]) -> Iterator[Leftover]:
    """Remove each, and the folders that this leaves empty; yields what is gone. ``fence``: called before each."""

    def gone(left: Leftover) -> Leftover:
        fence()
        store.delete(left.key)
        return left

    folders = set()
    deleters = ThreadPoolExecutor(DELETERS)
    try:
        for left in deleters.map(gone, leftovers):
            folders.add(left.folder)
            yield left
    finally:
        deleters.shutdown(cancel_futures=True)
    for folder in sorted(folders):
        fence()
        store.prune(folder)


class _Run:
    """What a run's records name, and what its names say."""

    def __init__(self, store: ObjectStore, keys: Set[str], names: Set[str]) -> None:
        self._keys = keys
        self._named: set[str] = set()
        self._plans: dict[str, str] = {}  # by stage, the place of its checkpoints
        self._committed: set[str] = set()
        for stage in {it for it in map(layout.stage_of, keys) if it}:
            plan = layout.read(store, f"{stage}/plan.json")
            if plan is None or plan["stage"] != stage:
                continue  # somebody's copy of a stage
            self._plans[stage] = checkpoint.place(stage, digest(plan["inputs"]))
            commit = find_commit(store, stage)
            if commit is not None:
                self._committed.add(stage)
                self._named |= {it.key for it in commit.objects()}
            for part in Output(store, stage, lambda: None).done().values():
                self._named |= {it.key for it in part.objects.values()}
        self._names = names | {key.rpartition("/")[2] for key in self._named}

    def left(self, key: str) -> tuple[str, str] | None:
        """The folder and the reason of a leftover; None for what is needed, and for what is not the run's by name."""
        if _TEMPORARY.fullmatch(key):
            return TEMPORARY, "half-written files of writers that were killed"
        if _RAYS.fullmatch(key):
            return RAYS, "Ray Train's records of trainings on a cluster: nothing reads them again"
        if _SEEN.fullmatch(key):
            return "driver", "what nodes of a cluster were shown by a driver that was killed"
        if (data := _DATA.fullmatch(key)) and data[1] in self._plans and data[2] in self._names:
            why = "data that no commit and no finished part names"
            return None if key in self._named else (f"{data[1]}/data", why)
        if (aside := _ASIDE.fullmatch(key)) and aside[1] in self._plans:
            return f"{aside[1]}/undecided", "what a selection set aside before it was interrupted: it starts over"
        saved = _CHECKPOINT.fullmatch(key)
        if saved and saved[1] in self._plans and checkpoint.pointer_of(key) is not None:
            unused = self._unused(saved[1], key)
            return (f"{saved[1]}/checkpoints", unused) if unused else None
        return None

    def knows(self, key: str) -> bool:
        """Whether the run has given it this name."""
        stage = _DATA.fullmatch(key) or _CHECKPOINT.fullmatch(key) or _OF_STAGE.fullmatch(key)
        if stage is None or stage[1] not in self._plans:
            return _OF_RUN.fullmatch(key) is not None
        if stage.re is _DATA:
            return stage[2] in self._names
        return stage.re is _OF_STAGE or checkpoint.pointer_of(key) is not None

    def _unused(self, stage: str, key: str) -> str | None:
        """Why no training goes on from this file of a checkpoint, or None."""
        if stage in self._committed:
            return "checkpoints of a training whose network is committed"
        if not key.startswith(f"{self._plans[stage]}/"):
            return "checkpoints of another plan than the stage has"
        return None if checkpoint.pointer_of(key) in self._keys else "tensors of checkpoints that were never finished"
