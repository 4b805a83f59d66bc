"""What leaves a run: tables, networks and what describes them, in forms that other programs read."""
