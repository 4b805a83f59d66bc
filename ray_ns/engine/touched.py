"""Files whose time has changed since the run first saw them: the run goes on where their content is the same."""

import itertools
from collections.abc import Sequence
from dataclasses import replace

from ray_ns.artifacts.seen import OTHER, UNKNOWN, as_now, compare_pool, name_of, touched_shards
from ray_ns.corpora.corpus import Shard, changed
from ray_ns.corpora.hold_out import digests_of
from ray_ns.corpora.known import unpacked
from ray_ns.engine.run import Run
from ray_ns.engine.stages import digests
from ray_ns.errors import InputError
from ray_ns.store.commit import find_commit
from ray_ns.store.objects import ObjectStore


def compare(run: Run, store: ObjectStore) -> None:
    """Compare the content of known files that have another time with the hashes that the run in ``store`` recorded.

    That is the run itself, or the one that it is forked from just now.
    Labelled, validation and test images and their labels are compared with the digests that the run began with. Pool
    images are compared with what their labelling recorded; a shard that is not labelled yet needs no comparison. Reads
    the shards of such files, one row group at a time. Raises ``InputError`` naming what has changed, or a file that the
    run has no hash of.
    """
    for name, corpus in run.corpora.items():
        if not corpus.touched:
            continue
        shards = touched_shards(corpus)
        own = getattr(run.config.data, name) is not None  # else held out of the labelled corpus, which has noted them
        files = f"data.{name}: {len(corpus.touched):,} files have another time"
        if own:
            size = sum(shard.size for shard in shards)
            run.reporter.note(f"{files} than when the run began; their content is compared ({size / 1e6:,.1f} MB)")
        try:
            if name == "pool":
                compare_pool(store, corpus)
            else:
                _compare_labelled(run, store, name, shards)
        except InputError as error:
            raise InputError(f"data.{name}: {error}") from error
        run.corpora[name] = replace(corpus, touched=())
        if own:
            run.reporter.note(f"{files} and the content that the run has seen; it goes on")


def _compare_labelled(run: Run, store: ObjectStore, name: str, shards: Sequence[Shard]) -> None:
    corpus = run.corpora[name]
    commit = find_commit(store, digests.Digest.name)
    if commit is None or (not corpus.labels_lie_beside and "labels" not in commit.parts[0].facts):
        raise changed(name_of(corpus, shards[0]), UNKNOWN)
    part = commit.parts[0]
    images = unpacked(part.objects[name].read(store), part.facts["rows"][name])
    for shard in shards:
        at = corpus.shards.index(shard)
        one = replace(corpus, shards=(as_now(corpus, shard),))
        (now,) = digests_of(one)
        row = next((row for row, (a, b) in enumerate(itertools.zip_longest(images[at], now)) if a != b), None)
        if row is not None:
            both = row < min(len(images[at]), len(now))
            raise changed(one.open(one.shards[0]).where(row) if both else name_of(corpus, shard), OTHER)
        if "labels" in part.facts:
            (labels,) = digests.of_labels(one, run.config.data.classes)
            if labels != part.facts["labels"][name][at]:
                raise changed(name_of(corpus, shard), "has changed (its labels)")
