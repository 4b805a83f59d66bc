"""What an ingest is asked for: the options of ``ray-ns ingest``."""

from dataclasses import dataclass, field

from ray_ns.config import Cluster


@dataclass(frozen=True)
class Ingest:
    """What to pack: corpora as paths or URLs, ``size`` of the short side in pixels (None: as it is).

    ``labels``: take them along where the source has them. ``cluster``: what the work runs on.
    """

    source: str
    destination: str
    size: int | None = None
    keep_out: tuple[str, ...] = ()
    shard_rows: int | None = None
    image_column: str = "image"
    label_column: str = "label"
    labels: bool = True
    max_quarantined: float = 0.01
    max_passed_over: float = 0.05
    cluster: Cluster = field(default_factory=Cluster)
