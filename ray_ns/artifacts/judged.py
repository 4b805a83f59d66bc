"""How a network was judged on a suite: a row per image and view, and the figures that are made of them."""

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from ray_ns.artifacts.artifact import Artifact
from ray_ns.labels import schema
from ray_ns.store.objects import ObjectStore

JUDGED = "predictions.parquet"


class JudgedOn(Artifact):
    """What ``judge`` commits. A part holds some images in one view, which its fact ``view`` names."""

    @property
    def figures(self) -> Mapping[str, Any]:
        """JSON values: what the suite's kind gives."""
        found: Mapping[str, Any] = self.commit.summary["figures"]
        return found

    def tables(self, store: ObjectStore) -> Iterator[tuple[str, pa.Table]]:
        """Each part's view and rows, in order."""
        for part in self.commit.parts:
            stored = part.objects[JUDGED]
            yield str(part.facts["view"]), schema.from_parquet(stored.read(store), stored.key)
