"""``ray-ns evaluate``: networks judged on labelled images."""

from typing import Annotated

import typer

from ray_ns import printed
from ray_ns.cli.program import AsJson, app


@app.command()
def evaluate(
    network: Annotated[
        str,
        typer.Argument(
            help="A run that has ended; a folder like RUN/best; or a name of timm's.", metavar="RUN|NETWORK"
        ),
    ],
    overrides: Annotated[list[str] | None, typer.Argument(help="label.key=value, cluster.key=value, ...")] = None,
    *,
    on: Annotated[
        list[str],
        typer.Option(
            help="What to judge on, once or several times: test or validation, the run's own images; a FOLDER or URL "
            "of labelled images; fgsm:EPS or pgd:EPS[:STEPS], attacks (EPS is 0 to 1, or such as 8/255); corruptions, "
            "as ImageNet-C has them; perturbations, as ImageNet-P; robustness, the clean images, these two and both "
            "attacks at 8/255; among, for images of some classes, which alone the network may say (ImageNet-A, -R); "
            "real:real.json, ImageNet's labels reassessed. All but the first are of the test images, or with @FOLDER "
            "of others: corruptions@photos/. imagenet-c@FOLDER: ImageNet-C as it is published.",
            metavar="SUITE",
        ),
    ],
    networks: Annotated[
        list[str] | None,
        typer.Option(
            "--network",
            help="Which of a run: teacher, control, student, best, all, rounds/2. Default: the first three.",
            metavar="NAME",
        ),
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="Its directory; default: in RUN.evaluations.", metavar="DIR")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Judge trained networks, with intervals, and keep what they said of each image. The same command resumes."""
    from ray_ns.engine.evaluation import evaluate as judged
    from ray_ns.report.terminal import evaluation as report

    found = judged(network, on, output, networks or [], overrides or [], "json" if as_json else "auto")
    if as_json:
        printed.give({"evaluation": found.url, **found.report})
    else:
        report.show(found.report, found.url, found.names)
