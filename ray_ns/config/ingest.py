"""What decides the output of an ingest, recorded as the settings of a run are."""

from collections.abc import Sequence

from pydantic import Field

from ray_ns.config import yaml_text
from ray_ns.config.cluster import Cluster
from ray_ns.config.read import laid_over
from ray_ns.config.schema import Positive, Section
from ray_ns.errors import InputError


class Packing(Section):
    """How images are packed, and which of them."""

    size: Positive | None = Field(None, description="short side of the packed images, in pixels; null: as it is")
    keep_out: int = Field(0, ge=0, description="number of corpora whose images are kept out")
    labelled: bool = Field(True, description="labels are taken along")
    shard_rows: Positive | None = Field(None, description="images per shard; null: as many as make a shard's bytes")


class Ingested(Section):
    """The settings of an ingest, in the place where those of a run have their sections."""

    ingest: Packing


class _Reached(Section):
    cluster: Cluster = Cluster()


def cluster(overrides: Sequence[str]) -> Cluster:
    """What an ingest runs on, from ``cluster.key=value``. Raises ``InputError`` for any other setting."""
    for override in overrides:
        if not override.startswith("cluster."):
            raise InputError(
                f"{yaml_text.shown(override)}: not a setting of an ingest, which takes cluster.* and the options of "
                f"'ray-ns ingest --help'."
            )
    return laid_over(_Reached, {}, overrides).cluster
