"""Files whose time has changed since the run first saw them: the run goes on where their content is the same."""

import itertools
from collections.abc import Sequence
from dataclasses import replace

from ray_ns.corpora.corpus import Corpus, Shard, changed
from ray_ns.corpora.hold_out import digests_of
from ray_ns.corpora.known import check_of, unpacked
from ray_ns.engine.run import Run
from ray_ns.engine.stages import digests
from ray_ns.engine.workers.slices import CONTENT
from ray_ns.errors import InputError
from ray_ns.store import layout
from ray_ns.store.commit import Output, find_commit
from ray_ns.store.objects import ObjectStore

UNKNOWN = "has another time (cp -p and rsync -t keep it) and no hash in this run: it is taken to have changed"
OTHER = "has changed (the same size, another content)"
PieceKey = tuple[str, int, int]  # a shard's path, which of its parts, of how many


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
        shards = [corpus.shard(ordinal) for ordinal in sorted({it[0] for it in corpus.touched})]
        own = getattr(run.config.data, name) is not None  # else held out of the labelled corpus, which has noted them
        files = f"data.{name}: {len(corpus.touched):,} files have another time"
        if own:
            size = sum(shard.size for shard in shards)
            run.reporter.note(f"{files} than when the run began; their content is compared ({size / 1e6:,.1f} MB)")
        try:
            if name == "pool":
                _compare_pool(store, corpus, shards)
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
        raise changed(_name(corpus, shards[0]), UNKNOWN)
    part = commit.parts[0]
    images = unpacked(part.objects[name].read(store), part.facts["rows"][name])
    for shard in shards:
        at = corpus.shards.index(shard)
        one = replace(corpus, shards=(_now(corpus, shard),))
        (now,) = digests_of(one)
        row = next((row for row, (a, b) in enumerate(itertools.zip_longest(images[at], now)) if a != b), None)
        if row is not None:
            both = row < min(len(images[at]), len(now))
            raise changed(one.open(one.shards[0]).where(row) if both else _name(corpus, shard), OTHER)
        if "labels" in part.facts:
            (labels,) = digests.of_labels(one, run.config.data.classes)
            if labels != part.facts["labels"][name][at]:
                raise changed(_name(corpus, shard), "has changed (its labels)")


def _compare_pool(store: ObjectStore, corpus: Corpus, shards: Sequence[Shard]) -> None:
    recorded = _recorded(store)
    for shard in shards:
        of_shard = {key: content for key, content in recorded.items() if key[0] == shard.path}
        for (_, part, parts), content in of_shard.items():
            if content is None:
                raise changed(_name(corpus, shard), UNKNOWN)
            if _content(corpus, shard, part, parts) != content:
                raise changed(_name(corpus, shard), OTHER)


def _recorded(store: ObjectStore) -> dict[PieceKey, str | None]:
    """The checksum of each piece of the pool that was labelled so far; None where an earlier version recorded none."""
    found: dict[PieceKey, str | None] = {}
    for stage in layout.stages(store):
        if stage.rpartition("/")[2] != "label":
            continue
        commit = find_commit(store, stage)
        parts = commit.parts if commit is not None else Output(store, stage, lambda: None).done().values()
        for part in parts:
            keys = [(str(path), int(at), int(of)) for path, at, of in part.facts["shards"]]
            for key, content in zip(keys, part.facts.get(CONTENT, [None] * len(keys)), strict=True):
                found[key] = content if found.get(key) is None else found[key]
    return found


def _content(corpus: Corpus, shard: Shard, part: int, parts: int) -> str:
    """The checksum of a piece as its images are now, made as the labelling makes it (``stages.label``)."""
    reader = corpus.open(_now(corpus, shard))
    many = len(reader.group_rows)
    groups = [it for it in range(part * many // parts, (part + 1) * many // parts) if reader.group_rows[it]]
    images = (image.as_py() for group in groups for image in reader.images(group))
    return check_of(b"".join(map(check_of, images))).hex()


def _now(corpus: Corpus, shard: Shard) -> Shard:
    """The shard with the time that it has now, so that no reader uses what it holds of the shard as it was."""
    return replace(shard, stamp=next(stamp for ordinal, _, stamp in corpus.touched if ordinal == shard.ordinal))


def _name(corpus: Corpus, shard: Shard) -> str:
    """The touched file of a shard; of several files the first, and how many more there are."""
    paths = [path for ordinal, path, _ in corpus.touched if ordinal == shard.ordinal]
    return f"{corpus.root}/{paths[0]}" + (f" or one of {len(paths) - 1:,} more files" if len(paths) > 1 else "")
