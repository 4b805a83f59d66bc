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
    from ray_ns.engine.opening import drive
    from ray_ns.report.terminal.run import show

    with drive(config, overrides or [], "json" if as_json else "auto", grow, until, fork) as opened:
        from ray_ns.engine.turns import carry_out

        outcome = carry_out(opened)
        if as_json:
            printed.give(outcome.as_json())
        elif outcome.complete:
            show(outcome, opened.store.url, [opened.seconds_of(it.name) for it in outcome.all])
        else:
            printed.say(f"ended after --until {until}; run again without it to go on.")
