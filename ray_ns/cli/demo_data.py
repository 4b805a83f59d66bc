"""``ray-ns demo-data``: the digits of the demo."""

from pathlib import Path
from typing import Annotated

import typer

from ray_ns import printed
from ray_ns.cli.program import app


@app.command("demo-data")
def demo_data(
    folder: Annotated[Path, typer.Argument(help="Where the Parquet shards go.")],
    seed: Annotated[int, typer.Option(help="Which digits are labelled, validation, test and pool.")] = 0,
    per_class: Annotated[int, typer.Option(min=1, max=100, help="Labelled digits of each class.")] = 5,
) -> None:
    """Write the demo's data. Handwritten digits and photograph crops as Parquet shards."""
    from ray_ns.demo import write_digits

    write_digits(folder, seed, per_class)
    printed.say(f"demo data in {folder}")
