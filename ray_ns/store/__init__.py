"""Where everything a run makes is kept, and how it comes to exist: objects, seals, commits, leases."""
