"""Metrics of a network: from its labels and the true ones."""
