"""Noisy Student self-training at pool scale, on Ray."""

__version__ = "0.1.0"
