"""How a corpus is laid out: described in one line before any expensive work, and refused if it is likely a mistake."""

from collections.abc import Sequence

import numpy as np

from ray_ns.corpora.corpus import Corpus
from ray_ns.corpora.formats import folder
from ray_ns.corpora.formats.place import Kind
from ray_ns.corpora.found import NOTES, Found
from ray_ns.corpora.splits import SPLITS, split_of
from ray_ns.errors import InputError

SHOWN = 10  # classes named with their counts
SOURCE = "SRC"  # what an ingest calls its source, which is an argument and no setting
COUNTED = 1000  # rows are counted up to so many shards, since each has to be opened


def refuse(corpus: Corpus, name: str, share: float) -> None:
    """Raise ``InputError`` if what lies below the root is not the corpus that ``name`` (data.pool, ...) asks for.

    ``share`` (0..1): the share of its files that may be images and yet be passed over.
    """
    files = corpus.kind in {Kind.FOLDER, Kind.CSV}
    paths = _paths(corpus)
    labelled = corpus.label_column is not None
    if corpus.kind is not Kind.CSV:
        _refuse_splits(name, corpus.root, paths, not files)
    if corpus.kind is Kind.FOLDER and labelled:
        _refuse_wrapped(name, corpus.root, paths)
        _refuse_empty_class(corpus.found, name, corpus.root)
    _refuse_overlooked(corpus.found, name, corpus.root, share, "data.max_passed_over")


def refuse_to_pack(corpus: Corpus, share: float) -> None:
    """Raise ``InputError`` if an ingest would pack several parts of a data set as one, or pass over many files.

    Its folders need not be classes: mostly a pool is packed.
    """
    _refuse_splits(SOURCE, corpus.root, _paths(corpus), corpus.kind in {Kind.PARQUET, Kind.TAR})
    _refuse_overlooked(corpus.found, SOURCE, corpus.root, share, "--max-passed-over")


def _paths(corpus: Corpus) -> list[str]:
    """The paths of a corpus's files."""
    if corpus.kind in {Kind.FOLDER, Kind.CSV}:
        return [it.path for shard in corpus.shards for it in folder.unpack(shard.files)]
    return [it.path for it in corpus.shards]


def line(name: str, corpus: Corpus, counts: np.ndarray | None, names: Sequence[str] | None) -> str:
    """The corpus in one line. ``counts``: images per class, int64, None without labels; ``names``: of the classes."""
    shards = len(corpus.shards)
    if counts is not None:
        words = [f"{counts.sum():,} images in {_counted(counts, names)}"]
    elif shards <= COUNTED:
        words = [f"{sum(sum(corpus.open(shard).group_rows) for shard in corpus.shards):,} images"]
    else:
        words = [f"{shards:,} shards, {sum(shard.size for shard in corpus.shards) / 1e9:,.1f} GB"]
    words += [f"labels from {corpus.labels_from}"] if corpus.labels_from else []
    return f"{name}: {'; '.join([*words, *corpus.found.in_words()])}"


def _refuse_overlooked(found: Found, name: str, root: str, share: float, setting: str) -> None:
    """Raise ``InputError`` if more than ``share`` (0..1) of the files may be images and are passed over."""
    if found.overlooked() > share * found.of:
        kinds = [it for it in found.passed_over if it[0] not in NOTES]
        said = ", ".join(
            f"{count:,} {f'.{suffix}' if suffix else 'without suffix'} ({path})" for suffix, count, path in kinds
        )
        raise InputError(
            f"{name}: {root}: {found.overlooked():,} of {found.of:,} files are not images that can be read and "
            f"are passed over: {said}. Unpack or convert them, move them elsewhere, or raise {setting}."
        )


def _refuse_empty_class(found: Found, name: str, root: str) -> None:
    """Raise ``InputError`` if a class folder holds no image: the class would silently be missing."""
    if found.empty:
        said = ", ".join(found.empty[:SHOWN])
        raise InputError(
            f"{name}: {root}: no image that can be read lies in the class folder{'s' * (len(found.empty) > 1)} {said}. "
            f"Put images there, or remove the folder."
        )


def _refuse_splits(name: str, root: str, paths: Sequence[str], shards: bool) -> None:
    """Raise ``InputError`` if the names of its folders say that several parts of a data set lie in one corpus.

    ``shards``: look at the names of shards too. ``train`` and ``test`` beside other folders are taken for classes,
    unless there is a validation folder too.
    """
    folders = {path.split("/")[0] for path in paths if "/" in path}
    parts = {split: folder for folder in sorted(folders) if (split := split_of(folder))}
    if len(parts) == len(SPLITS) or (len(parts) > 1 and all(map(split_of, folders))):
        first = name.removeprefix("data.") if name != SOURCE else ""
        keys = ("pool" if first == "pool" else "labelled", "validation", "test")
        settings = " ".join(f"{key}={root}/{parts[it]}" for key, it in zip(keys, SPLITS, strict=True) if it in parts)
        raise InputError(
            f"{name}: {root}: {', '.join(parts.values())} are the parts of a data set and not "
            f"{'classes' if name == 'data.labelled' and not shards else 'one corpus'}. "
            + (f"Give each its own setting: {settings}" if first else "Ingest each by itself.")
        )
    below = {path.split("/")[1] for path in paths if path.count("/") > 1}
    if len(set(map(split_of, below))) > 1 and all(map(split_of, below)):
        raise InputError(
            f"{name}: {root}: {', '.join(sorted(below))} lie below {', '.join(sorted(folders)[:SHOWN])}, and are the "
            f"parts of a data set. Give each part a folder of its own, with the classes below it."
        )
    files = {split: path for path in sorted(paths) if (split := split_of(path.rpartition("/")[2].partition(".")[0]))}
    if shards and len(files) > 1:
        raise InputError(
            f"{name}: {root}: {', '.join(files.values())} belong to the parts of a data set and not to one corpus. "
            f"Move the shards of each part into a folder of its own"
            + (" and give those as labelled=, validation=, test= or pool=." if name != SOURCE else ".")
        )


def _refuse_wrapped(name: str, root: str, paths: Sequence[str]) -> None:
    """Raise ``InputError`` if all images lie below one folder whose subfolders look like the classes."""
    above = {path.split("/")[0] for path in paths}
    below = sorted({path.split("/")[1] for path in paths if path.count("/") > 1})
    if len(above) == 1 and len(below) > 1:
        folder = above.pop()
        raise InputError(
            f"{name}: {root}: holds only the folder {folder}, which holds {len(below):,} others "
            f"({', '.join(below[:SHOWN])}). If those are the classes, give {name.removeprefix('data.')}={root}/{folder}"
        )


def _counted(counts: np.ndarray, names: Sequence[str] | None) -> str:
    """The first ten classes with their numbers of images (``counts``: int64, per class)."""
    said = ", ".join(f"{names[at] if names else at} {count:,}" for at, count in enumerate(counts[:SHOWN].tolist()))
    more = len(counts) - SHOWN
    least, most = int(counts.min()), int(counts.max())
    return f"{len(counts):,} classes: {said}" + (f" and {more:,} more ({least:,} to {most:,} images)" * (more > 0))
