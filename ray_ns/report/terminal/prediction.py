"""The summary of a prediction, in one line and as JSON."""

from typing import Any

from ray_ns.artifacts.labels import Labels
from ray_ns.corpora.unreadable import in_words


def line(labels: Labels, output: str, run: str) -> str:
    """What was labelled, what could not be read and why, and where it lies."""
    bad = sum(labels.quarantine.values())
    unreadable = f", {bad:,} unreadable ({in_words(labels.quarantine)})" if bad else ""
    return f"{sum(labels.per_class):,} images labelled{unreadable}: {output}; its run is {run}"


def as_json(labels: Labels, output: str, run: str) -> dict[str, Any]:
    """The same as JSON values."""
    return {
        "images": int(labels.commit.summary["rows"]),
        "labelled": sum(labels.per_class),
        "per_class": labels.per_class,
        "unreadable": dict(labels.quarantine),
        "file": output,
        "run": run,
    }
