"""What ``ray-ns compare`` prints: settings that differ, the rounds of all runs, and the differences."""

from typing import Any

from ray_ns.printed import say
from ray_ns.report.terminal import columns


def show(found: dict[str, Any]) -> None:
    """Print what ``report.compared`` found; a run is called by its folder where that tells it from the others."""
    short = _short([of["run"] for of in found["runs"]])
    for run, rows in found["settings"].items():
        say(f"{short[run]} differs in: {'; '.join(rows) or 'no setting'}")
    rows = [
        [f"{short[of['run']]}/{row['round']}" + (" *" if row["best"] else ""), *(_percent(row, it) for it in SCORES)]
        for of in found["runs"]
        for row in of["rounds"]
    ]
    columns.show(("round", "top-1\nval", "top-1\ntest"), rows)
    say("* the best of its run, by its own rule (run.promote)")
    say("")
    say(f"top-1 on test against {_called(found['against'], short)}, in points, with the 95 % interval:")
    for it in found["differences"]:
        points = "not measured" if it["points"] is None else f"{it['points']:+.1f}"
        say(f"{_called(it['network'], short)}: {points}{_interval(it)}")


def _short(urls: list[str]) -> dict[str, str]:
    """What each run is called."""
    last = [url.rstrip("/").rpartition("/")[2] for url in urls]
    return dict(zip(urls, last if len({*last}) == len(last) else urls, strict=True))


def _called(network: str, short: dict[str, str]) -> str:
    """A network by its run's short name."""
    run = max((url for url in short if network.startswith(f"{url}/")), key=len)
    return short[run] + network.removeprefix(run)


SCORES = ("validation_top1", "test_top1")


def _percent(row: dict[str, Any], name: str) -> str:
    return columns.percent(row[name])


def _interval(it: dict[str, Any]) -> str:
    words = "" if it["low"] is None else f" ({it['low']:+.1f} to {it['high']:+.1f})"
    if it["unpaired"] is not None:
        return f"{words}, not paired: {it['unpaired']}"
    one, other = it["only"]
    alone = f"{one:,} images right here alone, {other:,} there alone; McNemar's exact p = {it['p']:.3g}"
    return f"{words}, {it['verdict']}; {alone}"
