"""The digests of the labelled, validation and test images of a run, by which the pool's copies of them are known."""

from collections.abc import Mapping
from functools import lru_cache

from ray_ns.artifacts.artifact import Artifact
from ray_ns.corpora.known import Known
from ray_ns.store.commit import StoredObject
from ray_ns.store.objects import ObjectStore

KnownFrom = tuple[ObjectStore, tuple[tuple[str, StoredObject], ...]]


class Digests(Artifact):
    """What ``digests`` commits."""

    @property
    def objects(self) -> Mapping[str, StoredObject]:
        """A file per corpus, by its name."""
        return self.commit.parts[0].objects

    def known_from(self, store: ObjectStore) -> KnownFrom:
        """What ``load`` takes, for whoever runs in another process."""
        return store, tuple(self.objects.items())


@lru_cache(1)
def load(store: ObjectStore, stored: tuple[tuple[str, StoredObject], ...]) -> Known:
    """The look-up of these objects, by corpus; read once in a process."""
    return Known({name: it.read(store) for name, it in stored})
