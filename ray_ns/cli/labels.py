"""``ray-ns labels``: which image got which label."""

from typing import Annotated, Literal

import typer

from ray_ns import printed
from ray_ns.cli.program import AsJson, RunDirectory, app


@app.command()
def labels(
    run: RunDirectory,
    output: Annotated[str, typer.Option("--output", "-o", help="FILE.csv, FILE.jsonl or FILE.parquet.")],
    number: Annotated[int | None, typer.Option("--round", help="Whose labels; default: the last whole ones.")] = None,
    network: Annotated[
        Literal["best"] | None, typer.Option("--network", help="The labels that the best network made.")
    ] = None,
    least: Annotated[
        float | None, typer.Option("--min", help="Only labels at least so confident (0 to 1).", metavar="X")
    ] = None,
    selected: Annotated[bool, typer.Option("--selected", help="Only labels that the selection kept.")] = False,
    pool: Annotated[str | None, typer.Option("--pool", help="Where the pool lies now, if elsewhere.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write which image got which label. One row per image, by its path; formats by the file's name."""
    from ray_ns.errors import InputError
    from ray_ns.export import files, runs
    from ray_ns.export.labels import Labelled, Wanted, export
    from ray_ns.observe import Reporter
    from ray_ns.store.objects import open_store
    from ray_ns.store.status import existing

    if number is not None and network:
        raise InputError("--round and --network: give one of them.")
    files.check(output)
    reporter, store = Reporter("json" if as_json else "auto"), open_store(existing(run))
    place, generation = runs.labels_of(store, number, network == "best", reporter)
    of = Labelled.at(store, place, runs.pool_of(store, pool, generation, reporter))
    counts, apostrophes = export(of, output, Wanted(least, selected))
    if apostrophes:
        reporter.note(f"{apostrophes:,} cells began like a formula and have an apostrophe before them in {output}.")
    if as_json:
        printed.give({"labels": place, "file": output, **counts.as_json()})
    else:
        printed.say(f"{output}: {counts.in_words()}; labels of {place}")
