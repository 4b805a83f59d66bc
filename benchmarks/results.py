"""docs/RESULTS.md, where benchmarks put their tables: each between two markers of its own."""

from collections.abc import Sequence
from pathlib import Path

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "RESULTS.md"


def put(name: str, lines: Sequence[str]) -> None:
    """Replace what lies between ``<!-- name: begin -->`` and ``<!-- name: end -->``. Both must be there."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    text = RESULTS.read_text()
    before, there, rest = text.partition(begin)
    _, also, after = rest.partition(end)
    if not (there and also):
        raise SystemExit(f"{RESULTS} has no {begin} ... {end}, between which the table goes.")
    RESULTS.write_text(before + "\n".join([begin, *lines, end]) + after)
