"""A labelled run made by hand: label parts and a selection as the stages commit them, without a network or Ray."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ray_ns.artifacts.labels import label_objects
from ray_ns.artifacts.selection import SELECTION
from ray_ns.corpora.corpus import Corpus, image_ids
from ray_ns.corpora.known import check_of
from ray_ns.labels import schema
from ray_ns.labels.files import About
from ray_ns.store import hints, layout
from ray_ns.store.commit import Commit, Output, ensure
from ray_ns.store.objects import LocalStore

THRESHOLD = 0.5


def free() -> None:
    """A fence nobody has run into."""


@dataclass(frozen=True)
class Truth:
    """What was put into a run, in the order of image ids."""

    ids: np.ndarray
    probabilities: np.ndarray
    reasons: list[str | None]
    copies: np.ndarray


def truth_of(pool: Corpus, classes: int, seed: int = 0) -> Truth:
    """Probabilities of every image; every seventh is unreadable, every eleventh known; some others are selected."""
    rng = np.random.default_rng(seed)
    ids = np.concatenate([image_ids(it.ordinal, np.arange(sum(pool.open(it).group_rows))) for it in pool.shards])
    probabilities = rng.dirichlet(np.full(classes, 0.4), len(ids)).astype(np.float32)
    reasons = ["truncated" if at % 7 == 3 else "in_test" if at % 11 == 5 else None for at in range(len(ids))]
    sure = probabilities.max(1) >= np.float32(THRESHOLD)
    copies = np.array(
        [1 + at % 3 if sure[at] and reasons[at] is None and at % 2 else 0 for at in range(len(ids))], np.int64
    )
    return Truth(ids, probabilities, reasons, copies)


def commit_labels(
    store: LocalStore,
    place: str,
    truth: Truth,
    parts: int = 2,
    keep: str = "top",
    inputs: Mapping[str, Any] = {},
    facts: Mapping[str, Any] = {},
    about: About | None = None,
) -> Commit:
    """The label stage at ``place``; ``facts``: of its first part; ``about``: None in a run of format 1 or 2."""
    classes = truth.probabilities.shape[1]
    table = schema.label_table(truth.ids, truth.probabilities, truth.reasons, keep, min(6, classes))

    def work(output: Output) -> tuple[Mapping[str, Any], int]:
        for part, (begin, end) in enumerate(_cut(table.num_rows, parts)):
            objects, checksum = label_objects(table.slice(begin, end - begin), {}, about)
            output.publish(part, objects, {**checksum, "shards": [], **(facts if part == 0 else {})})
        return {"rows": table.num_rows}, parts

    return ensure(store, place, {"teacher": "t", "only": None, **inputs}, work, free)


def facts_of(pool: Corpus) -> dict[str, Any]:
    """What label parts record of a pool's shards and their images, here all in one."""
    content = []
    for reader in map(pool.open, pool.shards):
        images = [image.as_py() for group in range(len(reader.group_rows)) for image in reader.images(group)]
        content.append(check_of(b"".join(map(check_of, images))).hex())
    return {"shards": [[it.path, 0, 1] for it in pool.shards], "content": content}


def commit_selection(store: LocalStore, place: str, labels: Commit, truth: Truth, parts: int = 2) -> Commit:
    """The selection at ``place`` of ``labels``; every third selected row is in the last part."""

    def work(output: Output) -> tuple[Mapping[str, Any], list[Any]]:
        labels_of, made, last = truth.probabilities.argmax(1).astype(np.int16), [], []
        for part, (begin, end) in enumerate(_cut(len(truth.ids), parts)):
            rows = begin + np.flatnonzero(truth.copies[begin:end])
            table = pa.table({"image_id": truth.ids[rows], "label": labels_of[rows], "copies": truth.copies[rows]})
            late = np.arange(len(rows)) % 3 == 2
            own = schema.to_parquet(table.filter(pa.array(~late)), {})
            made.append(output.put(part, {SELECTION: own}, {}))
            kept = table.filter(pa.array(late))
            last.append(kept.append_column("part", pa.array(np.full(len(kept), part, np.int32))))
        made.append(output.put(parts, {SELECTION: schema.to_parquet(pa.concat_tables(last), {})}, {}))
        classes = truth.probabilities.shape[1]
        return {"per_class": {"threshold": [THRESHOLD] * classes}}, made

    return ensure(store, place, {"labels": labels.digest}, work, free)


def labelled_run(
    folder: Path, pool: Corpus, names: Sequence[str] | None = ("cat", "dog", "owl"), keep: str = "top", parts: int = 2
) -> tuple[LocalStore, Truth]:
    """A run whose round 1 has labelled and selected ``pool``."""
    store, truth = LocalStore(folder), truth_of(pool, len(names or "three"))
    seen = {"pool": [vars(it) for it in pool.shards]}
    layout.begin(store, {"data": {}}, seen, free, layout.Classes(len(names or "three"), tuple(names or ()) or None))
    labels = commit_labels(store, "rounds/1/label", truth, parts, keep, facts=facts_of(pool))
    commit_selection(store, "rounds/1/select", labels, truth, parts)
    hints.write(store, layout.PLACES, {"pool": pool.root})
    return store, truth


def _cut(rows: int, parts: int) -> list[tuple[int, int]]:
    return list(itertools.pairwise(np.linspace(0, rows, parts + 1).astype(int).tolist()))
