"""``ray-ns two-moons``: the picture of the paper on Meta Pseudo Labels, and what it shows over seeds."""

from dataclasses import asdict
from typing import Annotated

import typer

from ray_ns import printed
from ray_ns.cli.program import AsJson, app


@app.command("two-moons")
def two_moons(
    *,
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="How many: 0, 1, ... They draw the data too.")] = 10,
    steps: Annotated[int, typer.Option(min=1, help="Steps of every training.")] = 5000,
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", help="Draw the decision regions of seed 0 there, as SVG and PNG.", metavar="DIR"
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare Meta Pseudo Labels, UDA and others on two moons. Six points have labels; no run, no images, no Ray."""
    from ray_ns.methods.two_moons import Settings
    from ray_ns.report import two_moons as report
    from ray_ns.report.terminal.two_moons import show

    folder = None if output is None else report.opened(output)
    settings, numbers = Settings(steps=steps), range(seeds)
    rows = list(report.rows(numbers, settings, lambda line: printed.tell(line, "variant")))
    found = {
        "settings": asdict(settings),
        "seeds": list(numbers),
        "variants": [it.as_json() for it in rows],
        "pictures": [] if folder is None else report.write(folder, rows, numbers),
    }
    if as_json:
        printed.give(found)
    else:
        show(found)
