"""What ``ray-ns status`` prints: a line per stage, then what the driver is doing."""

from typing import Any

from ray_ns.printed import say
from ray_ns.store.status import scored


def show(found: dict[str, Any]) -> None:
    """Print what ``read_status`` found."""
    for stage in found["stages"]:
        parts = f", {stage['parts']} parts" if stage["parts"] else ""
        curve = f", {scored(stage['curve'])}" if "curve" in stage else ""
        say(f"{stage['stage']:<20} {stage['state']}{parts}{curve}")
    say(found["driver"])
