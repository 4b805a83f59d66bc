"""Pack any corpus into Parquet shards, without copies of itself and without copies of images to keep out.

The destination is a run of its own (``store``): begun once, resumed by the same command, grown by ``--append``.
``generation`` packs what each command finds new in the source.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ray_ns.config import Config, Label, Settings
from ray_ns.config.ingest import Ingested, Packing
from ray_ns.corpora import layout
from ray_ns.corpora.corpus import Corpus, Shard
from ray_ns.corpora.formats.place import UnlabelledError
from ray_ns.engine import cards, preflight
from ray_ns.engine.fanout import FanOut, Tasks
from ray_ns.engine.ingest.generation import Generations
from ray_ns.engine.ingest.settings import Ingest
from ray_ns.engine.places import as_path, check_apart, check_free, check_lasting
from ray_ns.engine.run import Run
from ray_ns.errors import InputError
from ray_ns.observe import Mode, Reporter
from ray_ns.store import layout as runs
from ray_ns.store.commit import Commit
from ray_ns.store.lease import Lease
from ray_ns.store.objects import ObjectStore, open_store

KEPT_OUT = "keep_out_{}"


def ingest(asked: Ingest, append: bool, mode: Mode, fan_out: Callable[[Run], Tasks] = FanOut) -> list[Commit]:
    """Pack the source, or the rest of it after an interruption. One commit for each generation of the source.

    ``append``: pack new shards of the source too. ``fan_out``: what spreads tasks over the cluster. Raises
    ``InputError`` for whatever cannot be packed.
    """
    kept_out = {f"--keep-out {number}": it for number, it in enumerate(asked.keep_out, 1)}
    check_lasting({"SRC": asked.source, "DST": asked.destination} | kept_out)
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
    named = Settings.of_run(begun, Ingested)
    runs.check_owner(store, lambda record: named.differences(record, settings))
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
    # Nothing is trained: of a run's config, only the sections that say how Ray is reached.
    parts: dict[str, Any] = {"cluster": asked.cluster, "label": Label()}
    with Run(
        Config.model_construct(**parts), store, corpora, tuple(bounds), Lease(store), reporter, fan_out=fan_out
    ) as run:
        run.join()
        seen = {name: [vars(shard) for shard in corpus.shards] for name, corpus in corpora.items()}
        if not begun:
            runs.begin(store, Settings().of(settings), seen, run.lease.check, None)
        elif len(bounds) > len(pinned):
            runs.grow(store, seen, len(bounds), run.lease.check)
        generations = Generations(run, asked)
        packed = [generations.pack(number) for number in range(1, len(bounds) + 1)]
        cards.keep(run)
        return packed


def _check_places(asked: Ingest, store: ObjectStore) -> None:
    """Raise ``InputError`` where the destination holds other files, or is inside a corpus or contains one."""
    for corpus in (asked.source, *asked.keep_out):
        check_apart(store.url, corpus, "a destination of its own")
    same = next((it for it in asked.keep_out if as_path(it) == as_path(asked.source)), None)
    if same is not None:
        raise InputError(
            f"--keep-out {same} is SRC itself, so nothing of it could be packed. Give the images to keep out."
        )
    check_free(store, "an empty folder, or a new one")


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
    """The source, with labels where they are asked for and it has some."""
    if asked.labels:
        try:
            corpus = Corpus.scan(asked.source, asked.image_column, asked.label_column, known)
            labels = corpus.open(corpus.shards[0]).labels()
            if labels.null_count < len(labels):
                return replace(corpus, names=corpus.class_names())
        except UnlabelledError:
            pass
        except InputError as error:
            Corpus.scan(asked.source, asked.image_column, None, known)  # raises where the error is not about labels
            raise InputError(f"{error} Or pack the images without labels: --no-labels.") from error
    return Corpus.scan(asked.source, asked.image_column, None, known)
