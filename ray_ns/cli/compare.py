"""``ray-ns compare``: runs against each other."""

from typing import Annotated

import typer

from ray_ns import printed
from ray_ns.cli.program import AsJson, app


@app.command()
def compare(
    runs: Annotated[list[str], typer.Argument(help="Runs that have ended; of one, its rounds.", metavar="RUN...")],
    as_json: AsJson = False,
) -> None:
    """Compare runs that have ended. Settings that differ, all rounds, paired differences on the same test images."""
    from ray_ns.report.compared import compare as compared
    from ray_ns.report.terminal.compare import show

    found = compared(runs)
    if as_json:
        printed.give(found)
    else:
        show(found)
