"""``ray-ns config``: every setting, and the configs that come with the package."""

from typing import Annotated

import typer

from ray_ns import printed
from ray_ns.cli.program import app


@app.command()
def config(
    name: Annotated[str | None, typer.Argument(help="Print this preset instead; --list names them.")] = None,
    listed: Annotated[bool, typer.Option("--list", help="Name the presets.")] = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of a config, for editors.")] = False,
) -> None:
    """Print every setting. With its meaning, range and default, as commented YAML; or a preset to start from."""
    from ray_ns.errors import InputError

    if (name is not None) + listed + schema > 1:
        raise InputError("config: give a preset's name, --list or --schema, one of them.")
    if schema:
        import json

        from ray_ns.config.json_schema import json_schema

        lines = json.dumps(json_schema(), indent=2).splitlines()
    elif listed:
        from ray_ns.config.presets import about, presets

        lines = [f"{it:<24} {about(path.read_text(encoding='utf-8'))}" for it, path in presets().items()]
    elif name is not None:
        from ray_ns.config.presets import preset

        lines = preset(name).splitlines()
    else:
        from ray_ns.config.show import schema_as_yaml

        lines = schema_as_yaml().splitlines()
    for line in lines:
        printed.say(line)
