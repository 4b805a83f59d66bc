"""A paper each, one page: the algorithm over stages that are handed to it."""
