"""``ray-ns select``: another selection from a run's labels."""

from typing import Annotated

import typer

from ray_ns import printed
from ray_ns.cli.program import AsJson, app


@app.command()
def select(
    config: Annotated[str, typer.Argument(help="The config of a run whose pool is labelled.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="select.key=value, laid over the config.")] = None,
    number: Annotated[int | None, typer.Option("--round", help="Whose labels; default: the last round's.")] = None,
    as_json: AsJson = False,
) -> None:
    """Filter and balance a run's labels again. No teacher runs; the select settings may be others than the run's."""
    from ray_ns.engine.opening import reopen
    from ray_ns.engine.stages.select import select_again
    from ray_ns.report.terminal import selection

    with reopen(config, overrides or [], "json" if as_json else "auto") as run:
        found = select_again(run, number)
        if as_json:
            printed.give(selection.as_json(found))
        else:
            selection.show(found, run.class_names)
