"""The commit protocol: how a stage's output comes to exist.

A stage is a prefix in the run with ``plan.json`` (the inputs it is made from), ``data/<part>-<digest>/<name>``
(content-addressed: a retry that computes the same bytes overwrites itself), ``done/<part>.json`` (put-if-absent: the
first writer of a part wins) where a part is worth resuming from, and ``commit.json`` (put-if-absent). Only
``commit.json`` makes the output exist; readers open only what it names. None of them holds a time, a host or an
attempt, so the same work gives the same bytes.

``register/<stage>.json``, outside the stage, holds the digest of its commit, so that ``store.verify`` notices a commit
that is lost.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, BinaryIO

import xxhash

from ray_ns import measures
from ray_ns.errors import InputError, IntegrityError, ResumableError
from ray_ns.seals import digest, seal, sha256, unseal, unseal_with_digest
from ray_ns.store.fork import place_and_mend
from ray_ns.store.objects import ObjectStore

_DONE = re.compile(r"\d{6,}\.json", re.ASCII)
REGISTER = "register/"
READERS = 16  # threads that read done records: there are thousands, and in S3 each takes a round trip


@dataclass(frozen=True)
class StoredObject:
    """A data object that a commit names: its key in the run, its sha256 in hex, its size in bytes."""

    key: str
    sha256: str
    size: int

    def read(self, store: ObjectStore, xxh3: str | None = None) -> bytes:
        """The bytes, checked by their sha256; or by ``xxh3`` where it is given, which finds damage too, and is faster.

        ``IntegrityError`` where they are missing or differ from the commit.
        """
        data = store.get(self.key)
        if data is None or (sha256(data) != self.sha256 if xxh3 is None else xxhash.xxh3_64_hexdigest(data) != xxh3):
            state = "is missing" if data is None else f"does not match its hash ({len(data)} bytes read)"
            place, mend = place_and_mend(store, self.key)
            raise IntegrityError(
                f"{self.key} in {place} {state}; the commit names sha256 {self.sha256}, {self.size} bytes. {mend}"
            )
        return data

    def open(self, store: ObjectStore) -> BinaryIO:
        """The object as a file, unchecked: the caller checks what it reads. ``IntegrityError`` where it is missing."""
        file = store.open(self.key)
        if file is None:
            place, mend = place_and_mend(store, self.key)
            raise IntegrityError(f"{self.key} in {place} is missing; the commit names {self.size} bytes. {mend}")
        return file


@dataclass(frozen=True)
class Part:
    """One finished part of a stage: its objects by name, and the facts its maker recorded (JSON values)."""

    objects: Mapping[str, StoredObject]
    facts: Mapping[str, Any]

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Part":
        return cls({name: StoredObject(**it) for name, it in value["objects"].items()}, value["facts"])

    def as_json(self) -> dict[str, Any]:
        return {"objects": {name: vars(it) for name, it in self.objects.items()}, "facts": dict(self.facts)}


@dataclass(frozen=True)
class Commit:
    """A stage's committed output. Later stages refer to it by ``digest``; ``inputs`` is the digest of its inputs."""

    stage: str
    digest: str
    inputs: str
    parts: tuple[Part, ...]
    summary: Mapping[str, Any]

    def objects(self) -> Iterator[StoredObject]:
        """Every data object the commit names."""
        for part in self.parts:
            yield from part.objects.values()


class Output:
    """A stage while it is being worked on; made by ``ensure`` and handed to its work function."""

    def __init__(self, store: ObjectStore, prefix: str, fence: Callable[[], None]) -> None:
        self.store = store
        self.prefix = prefix
        self._fence = fence

    def done(self) -> dict[int, Part]:
        """The parts that earlier attempts finished, by number."""
        keys = done_keys(self.store, self.prefix)
        with ThreadPoolExecutor(READERS) as readers:
            records = readers.map(lambda key: _read_sealed(self.store, key), keys)
        return {int(record["part"]): Part.from_json(record) for record in records if record is not None}

    def put(self, part: int, objects: Mapping[str, bytes], facts: Mapping[str, Any]) -> Part:
        """Store a part's data without a ``done`` record. Pass the returned part to ``commit``."""
        self._fence()
        hashes = {name: sha256(data) for name, data in objects.items()}
        place = f"{self.prefix}/data/{part:06d}-{digest(hashes)[:16]}"
        stored = {}
        for name, data in sorted(objects.items()):
            self.store.put(f"{place}/{name}", data)
            stored[name] = StoredObject(f"{place}/{name}", hashes[name], len(data))
        return Part(stored, dict(facts))

    def publish(self, part: int, objects: Mapping[str, bytes], facts: Mapping[str, Any]) -> Part:
        """Store a part: its data, then its ``done`` record. Returns the recorded part: another's, if it came first."""
        return self.adopt(part, self.put(part, objects, facts))

    def adopt(self, part: int, made: Part) -> Part:
        """Record a part whose objects are stored already, by this stage or by one with the same inputs."""
        key = f"{self.prefix}/done/{part:06d}.json"
        record = {"part": part, **made.as_json()}
        self._fence()
        if not self.store.put_if_absent(key, seal(record)):
            record = _read_sealed(self.store, key) or record
        return Part.from_json(record)

    def commit(self, inputs: Mapping[str, Any], summary: Mapping[str, Any], parts: int | Sequence[Part]) -> Commit:
        """Commit the stage with the given parts, or with the parts 0..``parts``-1, all of which must be done."""
        if isinstance(parts, int):
            done = self.done()
            missing = sorted(set(range(parts)) - set(done))
            if missing:
                raise ResumableError(
                    f"{self.prefix}: parts {missing[:5]} of {parts} are not done; run the command again."
                )
            parts = [done[part] for part in range(parts)]
        records = [part.as_json() for part in parts]
        value = {"stage": self.prefix, "inputs": digest(inputs), "parts": records, "summary": dict(summary)}
        self._fence()
        self.store.put_if_absent(f"{self.prefix}/commit.json", seal(value))
        committed = find_commit(self.store, self.prefix)
        if committed is None:
            raise ResumableError(f"{self.prefix}/commit.json was written but cannot be read back; run again.")
        return committed


def done_keys(store: ObjectStore, prefix: str) -> list[str]:
    """Keys of the records of finished parts of the stage at ``prefix``, from a listing."""
    place = f"{prefix}/done/"
    return [key for key in store.list(place) if _DONE.fullmatch(key.removeprefix(place))]


def find_commit(store: ObjectStore, prefix: str) -> Commit | None:
    """The commit of the stage at ``prefix``, or None where there is none."""
    key = f"{prefix}/commit.json"
    data = store.get(key)
    if data is None:
        return None
    value, found = unseal_with_digest(data, key)
    parts = tuple(Part.from_json(part) for part in value["parts"])
    return Commit(value["stage"], found, value["inputs"], parts, value["summary"])


def planned_inputs(store: ObjectStore, prefix: str) -> dict[str, Any] | None:
    """The inputs that the stage at ``prefix`` was begun with, or None where it was not begun."""
    plan = _read_sealed(store, f"{prefix}/plan.json")
    return None if plan is None else plan["inputs"]


def ensure(
    store: ObjectStore,
    prefix: str,
    inputs: Mapping[str, Any],
    work: Callable[[Output], tuple[Mapping[str, Any], int | Sequence[Part]]],
    fence: Callable[[], None],
) -> Commit:
    """The committed output of a stage: read if it exists, else made by ``work`` and committed.

    ``inputs``: JSON values; everything that the output depends on, upstream commits by digest.
    ``work``: either publishes parts 0..n-1 and returns (summary, n), or puts parts and returns (summary, parts).
    ``fence``: called before anything is written; raises when another driver has taken over.
    Raises ``InputError`` where the stage was begun or committed with other inputs.
    """
    commit = find_commit(store, prefix)
    if commit is None:
        plan = seal({"stage": prefix, "inputs": inputs})
        fence()
        if not store.put_if_absent(f"{prefix}/plan.json", plan):
            _refuse_other_inputs(store, prefix, digest(inputs))
        stage = Output(store, prefix, fence)
        summary, parts = work(stage)
        commit = stage.commit(inputs, summary, parts)
        measures.count("ns_commits")
    if commit.inputs != digest(inputs):
        _refuse_other_inputs(store, prefix, digest(inputs))
    if not registered(store, f"{prefix}/commit.json", commit.digest):  # it is new, or a driver was killed before this
        fence()
        register(store, f"{prefix}/commit.json", commit.digest)
    return commit


def _refuse_other_inputs(store: ObjectStore, prefix: str, wanted: str) -> None:
    begun = digest(planned_inputs(store, prefix))
    raise InputError(
        f"{prefix} in {store.url} was begun with other inputs (digest {begun[:12]}, now {wanted[:12]}): its data, "
        f"weights or settings have changed since. Give a new run.dir, or delete that folder."
    )


def register_key(key: str) -> str:
    """The key in the register under which the digest of the record ``key`` is kept."""
    return f"{REGISTER}{key.removesuffix('/commit.json').removesuffix('.json')}.json"


def register(store: ObjectStore, key: str, of: str) -> None:
    """Note in the register that the record ``key`` exists, with the digest ``of``."""
    store.put(register_key(key), seal({"key": key, "digest": of}))


def registered(store: ObjectStore, key: str, of: str) -> bool:
    """Whether the register holds that digest of the record ``key``."""
    return store.get(register_key(key)) == seal({"key": key, "digest": of})


def _read_sealed(store: ObjectStore, key: str) -> dict[str, Any] | None:
    data = store.get(key)
    return None if data is None else unseal(data, key)
