"""What a run directory says by itself: which labels are asked for, and where the pool lies."""

import shlex
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ray_ns.artifacts import seen
from ray_ns.artifacts.report import best_network
from ray_ns.config.run import MOST_ROUNDS
from ray_ns.corpora.corpus import Corpus, Shard
from ray_ns.errors import InputError
from ray_ns.observe import Reporter
from ray_ns.store import hints, layout
from ray_ns.store.commit import find_commit, planned_inputs
from ray_ns.store.objects import ObjectStore

PREDICTED = "label"  # the only label stage of a prediction


def pool_of(store: ObjectStore, given: str | None, generation: int, reporter: Reporter) -> Corpus:
    """The pool of a run as it was labelled, opened. ``given``: where it lies; None: where the run's driver found it.

    ``generation``: of the pool, the first is 1. Raises ``InputError`` where it is not there, or a file is another one.
    """
    root = given or hints.read(store, layout.PLACES).get("pool")
    if not isinstance(root, str):
        raise InputError(f"{store.url}: it is not known where its pool lies ({layout.PLACES}). Say it: --pool PATH")
    known = [Shard(**it) for it in layout.generations(store)[generation - 1]["pool"]]
    try:
        pool = Corpus.scan(root, _image_column(layout.settings(store) or {}), None, known, compared=True)
        if pool.touched:
            reporter.note(f"{root}: {len(pool.touched):,} files have another time; their content is compared.")
            seen.compare_pool(store, pool)
    except InputError as error:
        raise InputError(f"{error} If the pool lies elsewhere now, say where: --pool PATH") from error
    new = len(pool.shards) - len(known)
    if new:
        reporter.note(f"{root}: {new:,} new shards have no labels and are left out; ray-ns run --grow takes them in.")
    return replace(pool, shards=tuple(known), touched=())


def _image_column(config: Mapping[str, Any]) -> str:
    data = config.get("data") or config.get("predict", {}).get("data") or {}
    return str((data.get("image_columns") or {}).get("pool") or data.get("image_column") or "image")


def labels_of(store: ObjectStore, number: int | None, best: bool, reporter: Reporter) -> tuple[str, int]:
    """The place of the label stage that is asked for, and the generation of its pool.

    ``number``: the round; None: the last one that labelled the whole pool. ``best``: the labels of the best network.
    Raises ``InputError`` where there are none.
    """
    config = layout.settings(store) or {}
    if "ingest" in config:
        raise InputError(f"{store.url}: is a packed corpus and has no labels of a teacher. Give the run.dir of a run.")
    if "predict" in config:
        if number is not None or best:
            raise InputError(f"{store.url}: is a prediction, with one set of labels. Leave out --round and --network.")
        return PREDICTED, 1
    generations = len(layout.generations(store))
    if best:
        return _of_best(store, generations, reporter), generations
    for generation in range(generations, 0, -1):
        rounds = [at for at in _labelled(store, generation) if number in {None, at}]
        whole = [at for at in rounds if not _only(store, generation, at)]
        if rounds:
            at = (whole or rounds)[-1]
            if generation < generations:
                reporter.warn("the pool as it has grown is not labelled yet: these are labels of the pool before.")
            if not whole:
                reporter.note(f"round {at} labelled only the images that the first selection chose (filter_once).")
            return _place(generation, at), generation
    which = "the pool is not labelled yet" if number is None else f"round {number} has no labels"
    raise InputError(f"{store.url}: {which}. Let 'ray-ns run' go on, or see 'ray-ns status {shlex.quote(store.url)}'.")


def _place(generation: int, number: int) -> str:
    return f"{layout.place(generation)}rounds/{number}/label"


def _labelled(store: ObjectStore, generation: int) -> list[int]:
    """The rounds whose labels are committed. One whose teacher was that of the round before has none of its own."""
    return [it for it in range(1, MOST_ROUNDS + 1) if find_commit(store, _place(generation, it)) is not None]


def _only(store: ObjectStore, generation: int, number: int) -> bool:
    """Whether a round labelled only the images of an earlier selection."""
    return (planned_inputs(store, _place(generation, number)) or {}).get("only") is not None


def _of_best(store: ObjectStore, generation: int, reporter: Reporter) -> str:
    """The place of the labels that the best network made."""
    network = best_network(store)
    best = network.place.rpartition("/")[0]
    for number in _labelled(store, generation):
        place = _place(generation, number)
        if (planned_inputs(store, place) or {}).get("teacher") == network.digest:
            reporter.note(f"the best network is that of {best}; it labelled the pool in round {number}.")
            return place
    pool = hints.read(store, layout.PLACES).get("pool")
    command = f"ray-ns predict {shlex.quote(store.url)} {shlex.quote(pool) if isinstance(pool, str) else 'POOL'} -o"
    raise InputError(f"{store.url}: its best network, of {best}, has labelled nothing yet. Let it: {command} FILE.csv")
