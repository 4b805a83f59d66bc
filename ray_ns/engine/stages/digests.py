"""The digests of the labelled, validation and test images of a run: a small stage of their own, made when it begins.

Whoever labels the pool leaves out by them what is known already; a resumed run and every worker read the same.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from ray_ns.corpora import known
from ray_ns.corpora.corpus import Corpus
from ray_ns.corpora.hold_out import digests_of
from ray_ns.corpora.known import Known
from ray_ns.engine.run import Run
from ray_ns.seals import digest
from ray_ns.store.commit import Commit, Output, StoredObject
from ray_ns.store.objects import ObjectStore

STAGE = "digests"
READ_BYTES = 20 * 10**9  # read and decoded in some minutes; beyond that, ingest does it, by tasks

Digests = Mapping[str, Sequence[Sequence[bytes]]]


def too_large(corpora: Mapping[str, Corpus]) -> bool:
    """True where nobody looks at each of the labelled, validation and test images before a run."""
    files = {(it.root, shard.path): shard.size for it in map(corpora.__getitem__, known.IN) for shard in it.shards}
    return sum(files.values()) > READ_BYTES


def ensure(run: Run, found: Digests | None = None) -> Commit | None:
    """The committed digests, of the corpora as they are divided; None where they are too large to look at.

    ``found``: the digests where they are at hand, by corpus, per shard in order of rows; else all images are read.
    """
    corpora = run.corpora
    if too_large(corpora):
        return None
    inputs = {"digest": known.VERSION} | {
        name: digest([vars(shard) for shard in corpora[name].shards]) for name in known.IN
    }

    def work(stage: Output) -> tuple[dict[str, Any], int]:
        of = found or {name: digests_of(corpora[name]) for name in known.IN}
        stage.publish(
            0,
            {name: known.packed(of[name]) for name in known.IN},
            {
                "rows": {name: [len(rows) for rows in of[name]] for name in known.IN},
                "labels": {name: of_labels(corpora[name], run.config.data.classes) for name in known.IN},
            },
        )
        return {name: sum(map(len, of[name])) for name in known.IN}, 1

    return run.ensure(STAGE, inputs, work)


def of_labels(corpus: Corpus, classes: int) -> list[str]:
    """A digest of the labels of every shard, in order."""
    return [known.digest_of(labels.tobytes()).hex() for labels in corpus.labels(classes)]


@lru_cache(1)
def load(store: ObjectStore, stored: tuple[tuple[str, StoredObject], ...]) -> Known:
    """The look-up of these objects of the stage, by corpus; read once in a process."""
    return Known({name: it.read(store) for name, it in stored})
