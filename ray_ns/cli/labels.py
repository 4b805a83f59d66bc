"""``ray-ns labels``: which image got which label."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ray_ns import printed
from ray_ns.cli.program import AsJson, RunDirectory, app
from ray_ns.errors import InputError

if TYPE_CHECKING:
    from ray_ns.export.by_class import How


@app.command()
def labels(
    run: RunDirectory,
    output: Annotated[str | None, typer.Option("--output", "-o", help="FILE.csv, FILE.jsonl or FILE.parquet.")] = None,
    by_class: Annotated[
        str | None, typer.Option(help="Put the images into a folder per class below this one.", metavar="FOLDER")
    ] = None,
    link: Annotated[bool, typer.Option("--link", help="With --by-class: as symbolic links.")] = False,
    copy: Annotated[bool, typer.Option("--copy", help="With --by-class: as copies.")] = False,
    number: Annotated[
        int | None, typer.Option("--round", help="Whose labels; default: the last round that labelled the whole pool.")
    ] = None,
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
    """Write which image got which label. One row per image, with its path; or a folder per class with the images."""
    from ray_ns.engine.places import check_apart
    from ray_ns.export import files
    from ray_ns.export.by_class import ByClass
    from ray_ns.export.labels import Labelled, Wanted, check, export
    from ray_ns.observe import Reporter
    from ray_ns.store import layout

    how = _how(output, by_class, link, copy)
    if output is not None:
        files.check(output)
    reporter, wanted = Reporter("json" if as_json else "auto"), Wanted(least, selected)
    of = Labelled.of_run(run, number, network == "best", pool, reporter)
    check(of, wanted)
    if output is not None:
        check_apart(output, of.pool.root, "another -o, outside of the pool")
    sorted_in = ByClass(of, by_class, how, wanted, layout.classes(of.store).count) if by_class and how else None
    counts, _ = export(of, output, wanted, sorted_in, reporter)
    for note in sorted_in.notes() if sorted_in else ():
        reporter.note(note)
    if as_json:
        printed.give({"labels": of.labels.place, "file": output, "by_class": by_class, **counts.as_json()})
    else:
        printed.say(
            f"{' and '.join(filter(None, (output, by_class)))}: {counts.in_words()}; labels of {of.labels.place}"
        )


def _how(output: str | None, by_class: str | None, link: bool, copy: bool) -> "How | None":
    """How images come into the folders, None where no folder is asked for."""
    if output is None and by_class is None:
        raise InputError("nothing to write: give -o FILE.csv (or .jsonl, .parquet), or --by-class FOLDER.")
    if (by_class is not None) != (link or copy) or (link and copy):
        raise InputError("--by-class FOLDER, with --link or with --copy: give both or neither.")
    return ("link" if link else "copy") if by_class is not None else None
