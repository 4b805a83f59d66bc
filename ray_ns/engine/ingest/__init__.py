"""Pack any corpus into Parquet shards: each image once."""

from ray_ns.engine.ingest.generation import Duplicates, Hashes, Packed

STAGES = (Hashes, Duplicates, Packed)  # of each generation of the source, in order
