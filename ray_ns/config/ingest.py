"""What decides the output of an ingest, recorded as the settings of a run are."""

from pydantic import Field

from ray_ns.config.schema import Positive, Section


class Packing(Section):
    """How images are packed, and which of them."""

    size: Positive | None = Field(None, description="short side of the packed images, in pixels; null: as it is")
    keep_out: int = Field(0, ge=0, description="number of corpora whose images are kept out")
    labelled: bool = Field(True, description="labels are taken along")
    shard_rows: Positive | None = Field(None, description="images per shard; null: as many as make a shard's bytes")


class Ingested(Section):
    """The settings of an ingest, in the place where those of a run have their sections."""

    ingest: Packing
