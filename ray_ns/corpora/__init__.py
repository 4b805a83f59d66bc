"""Corpora: where images lie, how each format is read, which images train and which evaluate."""
