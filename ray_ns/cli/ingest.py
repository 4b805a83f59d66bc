"""``ray-ns ingest``: pack a corpus."""

from typing import Annotated

import typer

from ray_ns import printed
from ray_ns.cli.program import AsJson, app


@app.command()
def ingest(
    source: Annotated[str, typer.Argument(help="The corpus to pack.", metavar="SRC")],
    destination: Annotated[str, typer.Argument(help="An empty folder, or what this command began.", metavar="DST")],
    overrides: Annotated[list[str] | None, typer.Argument(help="cluster.key=value, ...")] = None,
    *,
    size: Annotated[
        int | None, typer.Option(min=8, help="Shrink larger images once, to this short side in pixels (JPEG).")
    ] = None,
    keep_out: Annotated[
        list[str] | None, typer.Option(help="Leave out near-copies of this corpus (validation, test); repeatable.")
    ] = None,
    append: Annotated[bool, typer.Option("--append", help="Pack what SRC has gained, into new shards.")] = False,
    shard_rows: Annotated[int | None, typer.Option(min=1, help="Images per shard; default: about 256 MB.")] = None,
    image_column: Annotated[str, typer.Option(help="Column of images, where SRC is Parquet.")] = "image",
    label_column: Annotated[str, typer.Option(help="Column of labels, where SRC is Parquet.")] = "label",
    labels: Annotated[bool, typer.Option(help="Take labels along where SRC has them.")] = True,
    max_quarantined: Annotated[
        float, typer.Option(min=0, max=1, help="Share of SRC that may be unreadable before nothing is committed.")
    ] = 0.01,
    max_passed_over: Annotated[
        float, typer.Option(min=0, max=1, help="Share of SRC's files that may be no images: archives, videos, ...")
    ] = 0.05,
    as_json: AsJson = False,
) -> None:
    """Pack a corpus into Parquet shards. Each image once; the same command resumes."""
    from ray_ns.config.ingest import cluster
    from ray_ns.engine.ingest.opening import ingest as packed
    from ray_ns.engine.ingest.settings import Ingest
    from ray_ns.report.terminal import ingest as report

    wanted = Ingest(
        source,
        destination,
        size=size,
        keep_out=tuple(keep_out or ()),
        shard_rows=shard_rows,
        image_column=image_column,
        label_column=label_column,
        labels=labels,
        max_quarantined=max_quarantined,
        max_passed_over=max_passed_over,
        cluster=cluster(overrides or []),
    )
    commits = packed(wanted, append, "json" if as_json else "auto")
    if as_json:
        printed.give(report.as_json(commits))
    else:
        report.show(destination, commits)
