"""One generation of a source, packed in three stages: ``hashes``, ``duplicates``, ``ingest``.

1. ``hashes``: the sha256 of every image. A part is a run of the source, about one output shard.
2. ``duplicates``: which images have the bytes of an earlier image. A part is a range of hashes, of all generations.
3. ``ingest``: all other images that can be read and are not kept out. Its parts are the runs of the first stage.

A task makes one part: it reads its run of the source and publishes the part itself, so no image crosses Ray's object
store and the driver holds a few figures per part. The source is read twice and decoded once. Packing first and taking
duplicates out later would write nearly every shard of a real pool twice.
"""

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from ray_ns.corpora import pack
from ray_ns.corpora.corpus import Corpus
from ray_ns.corpora.unreadable import refuse_above
from ray_ns.engine.ingest import tasks
from ray_ns.engine.ingest.settings import Ingest
from ray_ns.engine.run import Run
from ray_ns.engine.stages.label import label_shards
from ray_ns.engine.stages.stage import Done, Stage
from ray_ns.engine.workers.slices import Job
from ray_ns.images import decode, leak_guard
from ray_ns.seals import digest
from ray_ns.store.commit import Commit, Output, find_commit, planned_inputs
from ray_ns.store.objects import ObjectStore

SHARD_BYTES, SHARD_ROWS = 256 << 20, 50_000  # of an output shard at most, about, where the user names no rows
SAMPLE = 64  # images whose size in the output says how many make a shard
RANGE_ROWS = 4_000_000  # hashes that one task merges: about 0.5 GB


class Generations:
    """Packs the generations of a source, which must be asked for in order."""

    def __init__(self, run: Run, asked: Ingest) -> None:
        self._run, self._asked = run, asked
        self._hashes: list[Commit] = []
        self._keep_out = KeepOut(run, {name: it for name, it in run.corpora.items() if name != "source"})

    def pack(self, number: int) -> Commit:
        """The committed shards of generation ``number``, the first is 1. Those of an older version stay as they are."""
        hashed, packed = (find_commit(self._run.store, f"{it.name}-{number:04d}") for it in (Hashes, Packed))
        if hashed and packed and number < len(self._run.pools):
            self._hashes.append(hashed)
            return packed
        source = self._run.corpora["source"]
        begin, end = [0, *self._run.pools][number - 1 : number + 1]
        new = replace(source, shards=source.shards[begin:end])
        generation = Generation(source, new, self._shard_rows(number, new))
        self._hashes.append(self._ensure(number, Hashes(generation)))
        duplicates = self._ensure(number, Duplicates(tuple(self._hashes), new.shards[0].ordinal))
        return self._ensure(number, Packed(generation, duplicates, self._asked, self._keep_out))

    def _ensure(self, number: int, stage: "_Stage") -> Commit:
        return self._run.ensure(f"{stage.name}-{number:04d}", stage)

    def _shard_rows(self, number: int, new: Corpus) -> int:
        """Images per output shard, decided once: another version of Pillow may encode the sample to other sizes."""
        planned = planned_inputs(self._run.store, f"{Hashes.name}-{number:04d}")
        if planned:
            return int(planned["shard_rows"])
        return self._asked.shard_rows or rows_per_shard(new, self._asked.size)


@dataclass(frozen=True)
class Generation:
    """The whole source, the part of it that is ``new`` in this generation, and how many images make an output shard."""

    source: Corpus
    new: Corpus
    shard_rows: int

    @property
    def digest(self) -> str:
        """Of the new shards."""
        return digest([vars(shard) for shard in self.new.shards])

    @cached_property
    def jobs(self) -> list[Job]:
        """The new shards as runs of about one output shard each."""
        return label_shards(self.new, self.shard_rows)


class _Stage(Stage[Commit]):
    """A stage of an ingest; the next one reads its commit as it is."""

    def artifact(self, run: Run, commit: Commit) -> Commit:
        return commit


@dataclass(frozen=True)
class Hashes(_Stage):
    """The stage that hashes every image of a generation."""

    generation: Generation

    name = "hashes"

    def inputs(self, run: Run) -> dict[str, Any]:
        return {"source": self.generation.digest, "shard_rows": self.generation.shard_rows}

    def work(self, run: Run, output: Output) -> Done:
        jobs = self.generation.jobs
        facts = make_parts(run, output, "parts read", tasks.hash_part, jobs, self.generation.source)
        return Done({}, len(jobs), f"{_total(facts, 'images'):,} images read")


@dataclass(frozen=True)
class Duplicates(_Stage):
    """The stage that finds the images, of shard ordinal ``first`` and later, whose bytes an earlier image has.

    ``hashes``: of this generation and of all before it.
    """

    hashes: tuple[Commit, ...]
    first: int

    name = "duplicates"

    def inputs(self, run: Run) -> dict[str, Any]:
        return {"hashes": [commit.digest for commit in self.hashes]}

    def work(self, run: Run, output: Output) -> Done:
        parts = [part for commit in self.hashes for part in commit.parts]
        files = [part.objects[tasks.HASHES] for part in parts]
        count = max(-(-_total([part.facts for part in parts], "images") // RANGE_ROWS), 1)
        ranges = list(itertools.pairwise(at * 2**64 // count for at in range(count + 1)))
        facts = make_parts(run, output, "ranges merged", tasks.merge_range, ranges, files, self.first)
        found = _total(facts, "duplicates")
        told = f"{found:,} images are copies of an earlier one, byte for byte"
        return Done({"duplicates": found}, count, told)


class KeepOut:
    """The corpora to keep out, and the guard that knows their images: made when first asked for, for all generations.

    The guard may be large, so one task makes it and it stays with the workers.
    """

    def __init__(self, run: Run, corpora: dict[str, Corpus]) -> None:
        self._run, self.corpora = run, corpora

    @cached_property
    def guard(self) -> tuple[Any, dict[str, Any]]:
        """(the guard as tasks take it, what it is made of), or (None, {}) where nothing is kept out."""
        shards = [(corpus, name, shard) for name, corpus in self.corpora.items() for shard in corpus.shards]
        if not shards:
            return None, {}
        guard, facts = self._run.fan_out(self._run).combine(tasks.thumbnails, shards, tasks.build_guard)
        if facts["keep_out"]["unreadable"]:
            self._run.reporter.warn(
                f"{facts['keep_out']['unreadable']} images to keep out cannot be read and guard nothing"
            )
        return guard, facts


@dataclass(frozen=True)
class Packed(_Stage):
    """The stage that packs what is left of a generation, and lists every image that was left out with the reason."""

    generation: Generation
    duplicates: Commit
    asked: Ingest
    keep_out: KeepOut

    name = "ingest"

    def inputs(self, run: Run) -> dict[str, Any]:
        kept_out = {name: [vars(shard) for shard in it.shards] for name, it in self.keep_out.corpora.items()}
        return {
            "source": self.generation.digest,
            "duplicates": self.duplicates.digest,
            "size": self.asked.size,
            "keep_out": digest(kept_out),
            "rules": [decode.VERSION, pack.VERSION, leak_guard.VERSION],
        }

    def work(self, run: Run, output: Output) -> Done:
        jobs, size = self.generation.jobs, self.asked.size
        guard, guarded = self.keep_out.guard
        files = [part.objects[tasks.DUPLICATES] for part in self.duplicates.parts]
        shared = (self.generation.source, size, files, guard)
        facts = make_parts(run, output, "shards packed", tasks.pack_part, jobs, *shared)
        summary = {name: _total(facts, name) for name in ("read", "images", "bytes", "duplicates", "leaks")}
        reasons: dict[str, int] = {}
        for reason, images in (item for part in facts for item in part["quarantine"].items()):
            reasons[reason] = reasons.get(reason, 0) + images
        refuse_above(self.asked.max_quarantined, summary["read"], reasons, self.asked.source, "--max-quarantined")
        told = f"{summary['images']:,} images packed, {sum(reasons.values()):,} in quarantine"
        return Done({**summary, "quarantine": dict(sorted(reasons.items())), **guarded}, len(jobs), told)


def make_parts(
    run: Run, output: Output, unit: str, make: Callable[..., Any], items: Sequence[Any], *shared: Any
) -> list[Any]:
    """The facts of a stage's parts, one for each item: those that were made before, and the others made by tasks.

    ``make(item, store, *shared)`` gives a part's objects and facts.
    """
    facts = {number: part.facts for number, part in output.done().items()}
    run.reporter.begin(output.prefix, len(items), unit, len(facts))
    left = [(number, item) for number, item in enumerate(items) if number not in facts]
    if left:
        images = sum(map(_images, facts.values()))
        place = (run.store, output.prefix, run.lease.held())
        for at, found in run.fan_out(run).map(tasks.publish_part, left, place, make, *shared):
            facts[left[at][0]] = found
            images += _images(found)
            run.reporter.progress(len(facts), images=images)
    return [facts[number] for number in range(len(items))]


def _images(facts: Mapping[str, Any]) -> int:
    """How many images a part has looked at; 0 where it looks at none."""
    return int(facts.get("read", facts.get("images", 0)))


def rows_per_shard(source: Corpus, size: int | None) -> int:
    """As many images as make SHARD_BYTES in the output, going by the first ones, and SHARD_ROWS at most."""
    groups = (
        reader.images(group) for reader in map(source.open, source.shards) for group in range(len(reader.group_rows))
    )
    sizes: list[int] = []
    for image in itertools.islice((value.as_py() for images in groups for value in images), SAMPLE):
        packed = pack.resized(image, size) if image and size else image
        sizes.append(len(packed) if isinstance(packed, bytes) else 0)
    mean = sum(sizes) / max(len(sizes), 1)
    return int(min(SHARD_ROWS, SHARD_BYTES / max(mean, 1)))


def left_out(store: ObjectStore, commits: Sequence[Commit]) -> Iterator[dict[str, Any]]:
    """Every image that was left out, in order: its place, why, and of what it is a copy."""
    for part in (part for commit in commits for part in commit.parts):
        for line in part.objects[tasks.LEFT_OUT].read(store).splitlines():
            yield json.loads(line)


def _total(facts: Sequence[Any], name: str) -> int:
    return sum(part[name] for part in facts)
