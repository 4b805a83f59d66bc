"""The stages of the loop on Ray: the only rooms that import it."""
