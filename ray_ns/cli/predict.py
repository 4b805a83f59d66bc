"""``ray-ns predict``: labels for new images."""

from typing import Annotated

import typer

from ray_ns import printed
from ray_ns.cli.program import AsJson, app


@app.command()
def predict(
    network: Annotated[
        str, typer.Argument(help="A run, whose best network labels; or a folder like RUN/best.", metavar="RUN|NETWORK")
    ],
    source: Annotated[str, typer.Argument(help="The images: a folder or URL of files, Parquet, tars.", metavar="SRC")],
    overrides: Annotated[list[str] | None, typer.Argument(help="label.key=value, cluster.key=value, ...")] = None,
    *,
    output: Annotated[str, typer.Option("--output", "-o", help="FILE.csv, FILE.jsonl or FILE.parquet.")],
    keep: Annotated[
        str | None, typer.Option(help="Where the prediction's run goes; default: FILE.run.", metavar="DIR")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Label new images with a trained network. The same command resumes; a finished one writes FILE again."""
    from ray_ns.engine.places import check_apart
    from ray_ns.engine.prediction import ANOTHER, predict_corpus
    from ray_ns.export import files
    from ray_ns.export.labels import export
    from ray_ns.report.terminal import prediction as report

    files.check(output)
    check_apart(output, source, f"{ANOTHER}, outside of SRC")
    place = keep or f"{output}.run"
    found = predict_corpus(network, source, place, overrides or [], "json" if as_json else "auto")
    _, apostrophes = export(found, output)
    if apostrophes:
        printed.tell(
            f"{apostrophes:,} cells began like a formula and have an apostrophe before them in {output}.", "note"
        )
    if as_json:
        printed.give(report.as_json(found.labels, output, place))
    else:
        printed.say(report.line(found.labels, output, place))
