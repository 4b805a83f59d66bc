"""``ray-ns study``: the paper's ablations of a config."""

from typing import Annotated

import typer

from ray_ns import printed
from ray_ns.cli.program import AsJson, app


@app.command()
def study(
    config: Annotated[str, typer.Argument(help="The YAML config of the run that is varied.")],
    name: Annotated[
        str,
        typer.Argument(
            help="noise, targets, filter, balance, ratio, pool, init, joint, rounds, sizes, or all of these; methods: "
            "the other methods; several with commas.",
            metavar="NAME",
        ),
    ],
    overrides: Annotated[list[str] | None, typer.Argument(help="section.key=value, laid over the config.")] = None,
    *,
    seeds: Annotated[
        str,
        typer.Option(
            help="0..4: these; 3: so many, from run.seed on. They change the training, and which images are held out, "
            "where validation or test images are not given."
        ),
    ] = "1",
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="Where its runs go; default: run.dir with .studies.", metavar="DIR"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Vary one thing at a time, each in a run of one round, and compare. The same command goes on, and reads."""
    from ray_ns.engine.study import study as studied
    from ray_ns.report.terminal import study as report

    found = studied(config, name, seeds, output, overrides or [], "json" if as_json else "auto")
    if as_json:
        printed.give(found)
    else:
        report.show(found)
