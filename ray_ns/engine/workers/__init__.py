"""What runs in other processes: Ray calls it, nothing here starts Ray."""
