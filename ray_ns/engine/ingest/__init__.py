"""Pack any corpus into Parquet shards: each image once."""
