"""How each kind of corpus is read: Parquet shards, tars, folders of image files. One reader per kind, one interface."""
