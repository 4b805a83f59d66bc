"""Labels: their table, and which of them train a student. Pure functions: no storage, no Ray."""
