"""The digests of the labelled, validation and test images: a small stage that is done when a run begins.

The labelling leaves out by them what is known already; a resumed run and every worker read the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray_ns.artifacts.digests import Digests
from ray_ns.corpora import known
from ray_ns.corpora.corpus import Corpus
from ray_ns.corpora.hold_out import digests_of
from ray_ns.engine.run import Run
from ray_ns.engine.stages.stage import Done, Stage
from ray_ns.seals import digest
from ray_ns.store.commit import Commit, Output

READ_BYTES = 20 * 10**9  # read and decoded in some minutes; beyond that, ingest does it, by tasks

Found = Mapping[str, Sequence[Sequence[bytes]]]


@dataclass(frozen=True)
class Digest(Stage[Digests]):
    """The committed digests, of the corpora as they are divided.

    ``found``: the digests where they are at hand, by corpus, per shard in order of rows; else all images are read.
    """

    found: Found | None = None

    name = "digests"

    def inputs(self, run: Run) -> dict[str, Any]:
        shards = {name: digest([vars(shard) for shard in run.corpora[name].shards]) for name in known.IN}
        return {"digest": known.VERSION} | shards

    def work(self, run: Run, output: Output) -> Done:
        corpora = run.corpora
        of = self.found or {name: digests_of(corpora[name]) for name in known.IN}
        output.publish(
            0,
            {name: known.packed(of[name]) for name in known.IN},
            {
                "rows": {name: [len(rows) for rows in of[name]] for name in known.IN},
                "labels": {name: of_labels(corpora[name], run.config.data.classes) for name in known.IN},
            },
        )
        return Done({name: sum(map(len, of[name])) for name in known.IN}, 1)

    def artifact(self, run: Run, commit: Commit) -> Digests:
        return Digests(commit)


def known_images(run: Run, found: Found | None = None) -> Digests | None:
    """The run's digests; None where the corpora are too large to look at each image."""
    return None if too_large(run.corpora) else run.ensure(Digest.name, Digest(found))


def too_large(corpora: Mapping[str, Corpus]) -> bool:
    """True where nobody looks at each of the labelled, validation and test images before a run."""
    files = {(it.root, shard.path): shard.size for it in map(corpora.__getitem__, known.IN) for shard in it.shards}
    return sum(files.values()) > READ_BYTES


def of_labels(corpus: Corpus, classes: int) -> list[str]:
    """A digest of the labels of every shard, in order."""
    return [known.digest_of(labels.tobytes()).hex() for labels in corpus.labels(classes)]
