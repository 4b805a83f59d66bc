"""``ray-ns predict``: labels for new images."""

from typing import Annotated

import typer

from ray_ns import printed
from ray_ns.cli.program import AsJson, app


@app.command()
def predict(
    network: Annotated[
        str,
        typer.Argument(
            help="A run, whose best network labels; a folder like RUN/best; or a name of timm's.", metavar="RUN|NETWORK"
        ),
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
    from ray_ns.engine.prediction import predict_to
    from ray_ns.report.terminal import prediction as report

    found = predict_to(network, source, output, keep, overrides or [], "json" if as_json else "auto")
    if as_json:
        printed.give(report.as_json(found.labels, output, keep or f"{output}.run"))
    else:
        printed.say(report.line(found.labels, output, keep or f"{output}.run"))
