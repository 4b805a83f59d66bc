"""Images: decoding, protected from bad files; input noise; near-duplicates."""
