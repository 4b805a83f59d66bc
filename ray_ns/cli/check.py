"""``ray-ns check``: would a run work."""

from typing import Annotated

import typer

from ray_ns import printed
from ray_ns.cli.program import AsJson, app


@app.command()
def check(
    config: Annotated[str, typer.Argument(help="A YAML config; 'ray-ns config' prints all settings.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="section.key=value, laid over the config.")] = None,
    as_json: AsJson = False,
) -> None:
    """Look whether a run would work. One step of every stage in this process, without Ray and without a write."""
    from ray_ns.engine.check import check as look

    for found in look(config, overrides or []):
        if as_json:
            printed.give({"what": found.what, **found.figures})
        else:
            printed.say(f"{found.what:<16} {found.line}")
