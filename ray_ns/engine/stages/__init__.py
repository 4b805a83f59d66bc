"""One stage a file: what it depends on, its work, what its commit is."""
