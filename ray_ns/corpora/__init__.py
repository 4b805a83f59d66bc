"""Where images lie and which of them count: scanning, formats, classes, hold-out, copies, packed shards."""
