"""Pack any corpus into Parquet shards, without copies of itself and without copies of images to keep out.

The destination is a run of its own (``store``): begun once, resumed by the same command, grown by ``--append``. Each
generation of the source is three stages. ``hashes``: the sha256 of every image. ``duplicates``: ranges of hashes, each
merged by one task, name the images whose bytes an earlier image has. ``ingest``: what is neither copy nor unreadable,
packed. The parts of the first and third are the same runs of the source, about one output shard each.

Ray tasks and not Ray Data: a task reads its run of the source and writes what comes of it itself, as selection does, so
no image crosses the object store and the driver holds a few figures per part. The source is read twice and decoded
once; the other way about, packing first and taking copies out later, nearly every shard of a real pool would be
written twice.
"""

import itertools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from ray_ns.config import Cluster, Config, Label, differences, results_of
from ray_ns.config.ingest import Ingested, Packing
from ray_ns.corpora import layout, pack
from ray_ns.corpora.corpus import Corpus, Shard
from ray_ns.corpora.formats.place import UnlabelledError
from ray_ns.corpora.unreadable import refuse_above
from ray_ns.engine import preflight
from ray_ns.engine.ingest.tasks import (
    DUPLICATES,
    HASHES,
    LEFT_OUT,
    build_guard,
    hash_part,
    merge_range,
    on_part,
    pack_part,
    thumbnails,
)
from ray_ns.engine.predict import Job
from ray_ns.engine.run import Run
from ray_ns.engine.stages.label import label_shards
from ray_ns.errors import InputError
from ray_ns.images import decode, leak_guard
from ray_ns.observe import Mode, Reporter
from ray_ns.seals import digest
from ray_ns.store import layout as runs
from ray_ns.store.commit import Commit, Output, find_commit, planned_inputs
from ray_ns.store.lease import Lease
from ray_ns.store.objects import ObjectStore, open_store

SHARD_BYTES, SHARD_ROWS = 256 << 20, 50_000  # of an output shard at most, about, where the user names no rows
SAMPLE = 64  # images whose size in the output says how many make a shard
RANGE_ROWS = 4_000_000  # hashes that one task merges: about 0.5 GB
ATTEMPTS = 16  # of a part: an image that kills its decoder costs one, and is read in a process of its own by the next
KEPT_OUT = "keep_out_{}"


@dataclass(frozen=True)
class Ingest:
    """What to pack: corpora as paths or URLs, ``size`` of the short side in pixels (None: as it is).

    ``labels``: take them along where the source has them.
    """

    source: str
    destination: str
    size: int | None = None
    keep_out: tuple[str, ...] = ()
    shard_rows: int | None = None
    image_column: str = "image"
    label_column: str = "label"
    labels: bool = True
    max_quarantined: float = 0.01
    max_passed_over: float = 0.05


def ingest(asked: Ingest, append: bool, mode: Mode) -> list[Commit]:
    """Pack the source, or what is left of it after an interruption; one commit for each generation of the source.

    ``append``: take in what the source has gained. Raises ``InputError`` for whatever cannot be packed.
    """
    store = open_store(asked.destination)
    _check_places(asked, store)
    begun = runs.read(store, runs.RUN)
    pinned = runs.generations(store)
    known = {name: [Shard(**it) for it in shards] for name, shards in (pinned[-1] if pinned else {}).items()}
    corpora = _scan(asked, known)
    labelled = corpora["source"].label_column is not None
    settings = Ingested(
        ingest=Packing(size=asked.size, keep_out=len(asked.keep_out), labelled=labelled, shard_rows=asked.shard_rows)
    )
    runs.check_owner(store, lambda record: differences(record, settings))
    reporter = Reporter(mode)
    if not begun or append:
        layout.refuse_to_pack(corpora["source"], asked.max_passed_over)
        for corpus in corpora.values():
            reporter.note(layout.line(corpus.root, corpus, None, None))
    for name, shards in known.items():
        if not (append and name == "source"):
            mend = "--append" if name == "source" else "another destination"
            corpora[name] = preflight.as_known(corpora[name], shards, corpora[name].root, mend, reporter)
    bounds = [len(generation["source"]) for generation in pinned]
    if len(corpora["source"].shards) not in bounds:
        bounds.append(len(corpora["source"].shards))
    preflight.check_writable(store.url)
    # There is no network and no training here: of a config, only how Ray is reached is needed.
    parts: dict[str, Any] = {"cluster": Cluster(), "label": Label()}
    with Run(Config.model_construct(**parts), store, corpora, tuple(bounds), Lease(store), reporter) as run:
        run.check_cluster()
        seen = {name: [vars(shard) for shard in corpus.shards] for name, corpus in corpora.items()}
        if not begun:
            runs.begin(store, results_of(settings), seen, run.lease.check, None)
        elif len(bounds) > len(pinned):
            runs.grow(store, seen, len(bounds), run.lease.check)
        work = _Work(run, asked)
        return [work.generation(number) for number in range(1, len(bounds) + 1)]


def _check_places(asked: Ingest, store: ObjectStore) -> None:
    """Refuse a destination that holds other things, or lies in a corpus or around one."""
    other = _as_path(store.url)
    for corpus in (asked.source, *asked.keep_out):
        one = _as_path(corpus)
        if one.is_relative_to(other) or other.is_relative_to(one):
            raise InputError(f"{store.url} and {corpus} lie one in the other. Give a destination of its own.")
    same = next((it for it in asked.keep_out if _as_path(it) == _as_path(asked.source)), None)
    if same is not None:
        raise InputError(
            f"--keep-out {same} is SRC itself, so nothing of it could be packed. Give the images to keep out."
        )
    if runs.read(store, runs.RUN) is None:
        ours = (runs.corpora_key(1), "driver/")
        other_key = next((key for key in store.list("") if not key.startswith(ours)), None)
        if other_key is not None:
            raise InputError(f"{store.url} holds other things ({other_key}). Give an empty folder, or a new one.")


def _as_path(place: str) -> PurePath:
    """A folder or URL as a path to compare with others."""
    scheme, separator, rest = place.partition("://")
    if separator and scheme != "file":
        return PurePosixPath(f"{scheme}/{rest}")
    return Path(os.path.realpath(rest if separator else place))  # which bears a loop of links


def _scan(asked: Ingest, known: dict[str, list[Shard]]) -> dict[str, Corpus]:
    """The source, with labels where it has them, and the corpora to keep out."""
    kept = (
        Corpus.scan(root, asked.image_column, None, known.get(KEPT_OUT.format(number), ()))
        for number, root in enumerate(asked.keep_out)
    )
    return {"source": _source(asked, known.get("source", ()))} | {
        KEPT_OUT.format(number): corpus for number, corpus in enumerate(kept)
    }


def _source(asked: Ingest, known: Sequence[Shard]) -> Corpus:
    if asked.labels:
        try:
            corpus = Corpus.scan(asked.source, asked.image_column, asked.label_column, known)
            labels = corpus.open(corpus.shards[0]).labels()
            if labels.null_count < len(labels):
                return replace(corpus, names=corpus.class_names())
        except UnlabelledError:
            pass
        except InputError as error:
            Corpus.scan(asked.source, asked.image_column, None, known)  # or it is not about labels, and raised here
            raise InputError(f"{error} Or pack the images without labels: --no-labels.") from error
    return Corpus.scan(asked.source, asked.image_column, None, known)


class _Work:
    """The three stages of each generation."""

    def __init__(self, run: Run, asked: Ingest) -> None:
        self._run, self._asked = run, asked
        self._source = run.corpora["source"]
        self._hashes: list[Commit] = []
        self._guard: Any = None

    def generation(self, number: int) -> Commit:
        """The committed shards of one generation of the source. What an older version has committed stays as it is."""
        store = self._run.store
        hashed, packed = (find_commit(store, f"{stage}-{number:04d}") for stage in ("hashes", "ingest"))
        if hashed and packed and number < len(self._run.pools):
            self._hashes.append(hashed)
            return packed
        bounds = [0, *self._run.pools]
        part = replace(self._source, shards=self._source.shards[bounds[number - 1] : bounds[number]])
        source = digest([vars(shard) for shard in part.shards])
        # How the source is cut is decided once: another version of Pillow may make other sizes of the sample.
        planned = planned_inputs(store, f"hashes-{number:04d}")
        inputs: dict[str, Any] = {
            "source": source,
            "shard_rows": planned["shard_rows"] if planned else self._rows(part),
        }
        jobs = label_shards(part, inputs["shard_rows"])
        self._hashes.append(self._run.ensure(f"hashes-{number:04d}", inputs, lambda stage: self._hash(stage, jobs)))
        inputs = {"hashes": [commit.digest for commit in self._hashes]}
        duplicates = self._run.ensure(
            f"duplicates-{number:04d}", inputs, lambda stage: self._merge(stage, part.shards[0].ordinal)
        )
        kept_out = {name: it for name, it in self._run.corpora.items() if name != "source"}
        inputs = {
            "source": source,
            "duplicates": duplicates.digest,
            "size": self._asked.size,
            "keep_out": digest({name: [vars(shard) for shard in it.shards] for name, it in kept_out.items()}),
            "rules": [decode.VERSION, pack.VERSION, leak_guard.VERSION],
        }
        return self._run.ensure(
            f"ingest-{number:04d}", inputs, lambda stage: self._pack(stage, jobs, duplicates, kept_out)
        )

    def _hash(self, stage: Output, jobs: Sequence[Job]) -> tuple[dict[str, Any], int]:
        done = self._parts(stage, len(jobs), "parts read", hash_part, jobs, self._source)
        self._run.reporter.end(f"{sum(facts['images'] for facts in done):,} images read")
        return {}, len(jobs)

    def _rows(self, source: Corpus) -> int:
        """Images per output shard: as asked for, or as many as make SHARD_BYTES, going by the first ones."""
        if self._asked.shard_rows:
            return self._asked.shard_rows
        groups = (
            reader.images(group)
            for reader in map(source.open, source.shards)
            for group in range(len(reader.group_rows))
        )
        sizes: list[int] = []
        for image in itertools.islice((value.as_py() for images in groups for value in images), SAMPLE):
            packed = pack.resized(image, self._asked.size) if image and self._asked.size else image
            sizes.append(len(packed) if isinstance(packed, bytes) else 0)
        mean = sum(sizes) / max(len(sizes), 1)
        return int(min(SHARD_ROWS, SHARD_BYTES / max(mean, 1)))

    def _merge(self, stage: Output, first: int) -> tuple[dict[str, Any], int]:
        files = [part.objects[HASHES] for commit in self._hashes for part in commit.parts]
        rows = sum(part.facts["images"] for commit in self._hashes for part in commit.parts)
        count = max(-(-rows // RANGE_ROWS), 1)
        cuts = [at * 2**64 // count for at in range(count + 1)]
        ranges = list(itertools.pairwise(cuts))
        done = self._parts(stage, count, "ranges merged", merge_range, ranges, files, first)
        found = sum(facts["duplicates"] for facts in done)
        self._run.reporter.end(f"{found:,} images are copies of an earlier one, byte for byte")
        return {"duplicates": found}, count

    def _pack(
        self, stage: Output, jobs: Sequence[Job], duplicates: Commit, kept_out: dict[str, Corpus]
    ) -> tuple[dict[str, Any], int]:
        guard, kept = self._guarded(kept_out) if kept_out else (None, {})
        files = [part.objects[DUPLICATES] for part in duplicates.parts]
        shared = (self._source, self._asked.size, files, guard)
        done = self._parts(stage, len(jobs), "shards packed", pack_part, jobs, *shared)
        summary = {key: sum(facts[key] for facts in done) for key in ("read", "images", "bytes", "duplicates", "leaks")}
        reasons: dict[str, int] = {}
        for reason, images in (item for facts in done for item in facts["quarantine"].items()):
            reasons[reason] = reasons.get(reason, 0) + images
        allowed = self._asked.max_quarantined
        refuse_above(allowed, summary["read"], reasons, self._asked.source, "--max-quarantined")
        self._run.reporter.end(f"{summary['images']:,} images packed, {sum(reasons.values()):,} in quarantine")
        return {**summary, "quarantine": dict(sorted(reasons.items())), **kept}, len(jobs)

    def _guarded(self, kept_out: dict[str, Corpus]) -> tuple[Any, dict[str, Any]]:
        """The guard, as a reference in Ray's object store, and what it is made of. Built once, by a task."""
        self._run.ray()
        import ray

        if self._guard is None:
            places = [(name, shard) for name, corpus in kept_out.items() for shard in corpus.shards]
            seen = [
                ray.remote(max_retries=ATTEMPTS)(thumbnails).remote(kept_out[name], name, shard)
                for name, shard in places
            ]
            guard, facts = ray.remote(num_returns=2)(build_guard).remote(*seen)
            self._guard = guard, ray.get(facts)
            if self._guard[1]["keep_out"]["unreadable"]:
                self._run.reporter.warn(
                    f"{self._guard[1]['keep_out']['unreadable']} images to keep out cannot be read and guard nothing"
                )
        return self._guard

    def _parts(
        self, stage: Output, count: int, unit: str, function: Callable[..., Any], items: Sequence[Any], *shared: Any
    ) -> list[Any]:
        """The facts of all parts: of those done before as they are recorded, of the others as tasks record them."""
        facts = {number: part.facts for number, part in stage.done().items()}
        self._run.reporter.begin(stage.prefix, count, unit, len(facts))
        if len(facts) == count:
            return [facts[number] for number in range(count)]
        self._run.ray()
        import ray

        task = ray.remote(max_retries=ATTEMPTS)(on_part)
        place = (self._run.store, stage.prefix, self._run.lease.held())
        references = [it if isinstance(it, ray.ObjectRef) else ray.put(it) for it in shared]
        left = iter([number for number in range(count) if number not in facts])
        slots = 2 * max(int(ray.cluster_resources().get("CPU", 1)), 1)
        waiting = {
            task.remote(place, function, number, items[number], *references): number
            for number in itertools.islice(left, slots)
        }
        while waiting:
            (done,), _ = ray.wait(list(waiting), num_returns=1)
            facts[waiting.pop(done)] = ray.get(done)
            self._run.reporter.progress(len(facts))
            waiting |= {
                task.remote(place, function, number, items[number], *references): number
                for number in itertools.islice(left, 1)
            }
        return [facts[number] for number in range(count)]


def left_out(store: ObjectStore, commits: Sequence[Commit]) -> Iterator[dict[str, Any]]:
    """Every image that was left out, in order: its place, why, and of what it is a copy."""
    for part in (part for commit in commits for part in commit.parts):
        for line in part.objects[LEFT_OUT].read(store).splitlines():
            yield json.loads(line)
