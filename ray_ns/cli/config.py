"""``ray-ns config``: every setting."""

from ray_ns import printed
from ray_ns.cli.program import app


@app.command()
def config() -> None:
    """Print every setting. With its meaning, range and default, as commented YAML."""
    from ray_ns.config.show import schema_as_yaml

    for line in schema_as_yaml().splitlines():
        printed.say(line)
