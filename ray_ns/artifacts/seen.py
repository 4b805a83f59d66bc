"""Pool files whose time has changed since they were labelled: whether their images are still the same."""

from dataclasses import replace

from ray_ns.corpora.corpus import Corpus, Shard, changed
from ray_ns.corpora.known import check_of
from ray_ns.store import layout
from ray_ns.store.commit import Output, find_commit
from ray_ns.store.objects import ObjectStore

CONTENT = "content"  # the fact of a label part that holds a checksum of each piece of the pool
UNKNOWN = "has another time (cp -p and rsync -t keep it) and no hash in this run: it is taken to have changed"
OTHER = "has changed (the same size, another content)"
PieceKey = tuple[str, int, int]  # a shard's path, which of its parts, of how many


def touched_shards(corpus: Corpus) -> list[Shard]:
    """The shards that hold ``touched`` files."""
    return [corpus.shard(ordinal) for ordinal in sorted({it[0] for it in corpus.touched})]


def compare_pool(store: ObjectStore, corpus: Corpus) -> None:
    """Compare touched files of a pool with what its labelling recorded; what is not labelled yet needs no comparison.

    Reads the shards of such files, one row group at a time. Raises ``InputError`` naming what has changed.
    """
    recorded = _recorded(store)
    for shard in touched_shards(corpus):
        of_shard = {key: content for key, content in recorded.items() if key[0] == shard.path}
        for (_, part, parts), content in of_shard.items():
            if content is None:
                raise changed(name_of(corpus, shard), UNKNOWN)
            if _content(corpus, shard, part, parts) != content:
                raise changed(name_of(corpus, shard), OTHER)


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
    reader = corpus.open(as_now(corpus, shard))
    many = len(reader.group_rows)
    groups = [it for it in range(part * many // parts, (part + 1) * many // parts) if reader.group_rows[it]]
    images = (image.as_py() for group in groups for image in reader.images(group))
    return check_of(b"".join(map(check_of, images))).hex()


def as_now(corpus: Corpus, shard: Shard) -> Shard:
    """The shard with the time that it has now, so that no reader uses what it holds of the shard as it was."""
    return replace(shard, stamp=next(stamp for ordinal, _, stamp in corpus.touched if ordinal == shard.ordinal))


def name_of(corpus: Corpus, shard: Shard) -> str:
    """The touched file of a shard; of several files the first, and how many more there are."""
    paths = [path for ordinal, path, _ in corpus.touched if ordinal == shard.ordinal]
    return f"{corpus.root}/{paths[0]}" + (f" or one of {len(paths) - 1:,} more files" if len(paths) > 1 else "")
