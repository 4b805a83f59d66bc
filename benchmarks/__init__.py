"""What ray_ns costs beside named peers. Each is run from the root of the repository: ``python -m benchmarks.NAME``."""
