"""Readers of corpora: Parquet shards, tars, folders of image files. One reader per kind, with one interface."""
