"""``ray-ns run``: the loop, run or resumed."""

from typing import Annotated

import typer

from ray_ns import printed
from ray_ns.cli.program import AsJson, app


@app.command()
def run(
    config: Annotated[str, typer.Argument(help="A YAML config; 'ray-ns config' prints all settings.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="section.key=value, laid over the config.")] = None,
    until: Annotated[
        str | None, typer.Option(help="End after this stage of round 1: label, select, train, ...", metavar="STAGE")
    ] = None,
    grow: Annotated[bool, typer.Option("--grow", help="Take in shards that the pool has gained.")] = False,
    fork: Annotated[
        str | None,
        typer.Option(help="Take from this run what it has made with the same settings; run.dir is new.", metavar="RUN"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run the loop, or resume it. The same command goes on from whatever was committed."""
    from ray_ns.api import run_loop
    from ray_ns.report.terminal.run import show

    result = run_loop(config, overrides or [], "json" if as_json else "auto", until=until, grow=grow, fork=fork)
    if as_json:
        printed.give(result.report)
    elif result.complete:
        show(result.outcome, result.url, result.seconds, result.judged, result.calibrated)
    else:
        printed.say(f"ended after --until {until}; run again without it to go on.")
