"""What ``ray-ns two-moons`` prints: the settings, a row per variant, and what it says and what not."""

from collections.abc import Mapping
from typing import Any

from ray_ns.printed import say
from ray_ns.report.terminal import columns

TITLES = ("variant", "mean\n%", "min\n%", "seeds\n>= 97 %", "")


def show(found: Mapping[str, Any]) -> None:
    """Print what the experiment found, as ``--json`` has it."""
    say("settings: " + ", ".join(f"{name} {value}" for name, value in found["settings"].items()))
    seeds = len(found["seeds"])
    rows = [
        [it["name"], columns.percent(it["mean"]), columns.percent(it["min"]), f"{it['solved']} of {seeds}", _terms(it)]
        for it in found["variants"]
    ]
    columns.show(TITLES, rows)
    say("")
    say("on the right: what weighs in the loss of the network that gives labels.")
    for path in found["pictures"]:
        say(f"picture: {path}")


def _terms(variant: Mapping[str, Any]) -> str:
    names = {"labelled": "labels", "plain": "own labels", "consistency": "UDA", "feedback": "feedback"}
    return ", ".join(f"{word} {variant[name]:g}" for name, word in names.items() if variant[name])
