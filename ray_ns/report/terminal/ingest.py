"""The summary of an ingest: what it packed and what it left out, in words and as JSON."""

from collections.abc import Sequence
from typing import Any

from ray_ns.corpora.pack import IMAGES
from ray_ns.corpora.unreadable import in_words
from ray_ns.printed import say
from ray_ns.store.commit import Commit

COUNTS = ("read", "images", "bytes", "duplicates", "leaks")


def as_json(commits: Sequence[Commit]) -> dict[str, Any]:
    """Counts over all generations of the source, the shards, and the leak guard's figures where it was asked for."""
    found: dict[str, Any] = {name: sum(commit.summary[name] for commit in commits) for name in COUNTS}
    found["quarantine"] = {}
    for reason, images in (item for commit in commits for item in commit.summary["quarantine"].items()):
        found["quarantine"][reason] = found["quarantine"].get(reason, 0) + images
    parts = [part for commit in commits for part in commit.parts]
    found["shards"] = [part.objects[IMAGES].key for part in parts if IMAGES in part.objects]
    found["keep_out"] = commits[-1].summary.get("keep_out")
    return found


def show(destination: str, commits: Sequence[Commit]) -> None:
    """Print the summary."""
    found = as_json(commits)
    lines = [
        f"{found['images']:,} of {found['read']:,} images packed in {len(found['shards']):,} shards "
        f"({found['bytes'] / 1e6:,.1f} MB) in {destination}",
        f"  {found['duplicates']:,} left out as copies of an earlier image, byte for byte",
    ]
    guard = found["keep_out"]
    if guard is not None:
        lines.append(
            f"  {found['leaks']:,} left out as near-copies of the {guard['images']:,} images to keep out "
            f"(distance up to {guard['distance']:g})"
        )
    words = in_words(found["quarantine"])
    lines.append(f"  {sum(found['quarantine'].values()):,} unreadable" + (f": {words}" if words else ""))
    lines.append(f"  all of these are listed in {destination}/ingest-*/data/*/left_out.jsonl")
    for line in lines:
        say(line)
