"""``ray-ns gc``: what nothing in a run needs any more."""

from typing import Annotated

import typer

from ray_ns import printed
from ray_ns.cli.program import AsJson, RunDirectory, app


@app.command()
def gc(
    run: RunDirectory,
    delete: Annotated[bool, typer.Option("--delete", help="Remove it; else it is only told.")] = False,
    as_json: AsJson = False,
) -> None:
    """Find what nothing in a run names and is older than a day. Left by kills, lost races and trainings on clusters."""
    from ray_ns.engine import leftovers
    from ray_ns.report.terminal import leftovers as report

    found = leftovers.remove(run, "json" if as_json else "auto") if delete else leftovers.find(run)
    if as_json:
        printed.give(report.as_json(found, delete))
    else:
        report.show(found, delete)
