"""``ray-ns inspect``: look at every image of a corpus."""

from typing import Annotated

import typer

from ray_ns import printed
from ray_ns.cli.program import AsJson, app


@app.command("inspect")
def inspect_corpus(
    corpus: Annotated[str, typer.Argument(help="A folder or URL of Parquet shards, tars or image files.")],
    labelled: Annotated[bool, typer.Option("--labelled", help="Read its labels too.")] = False,
    image_column: Annotated[str, typer.Option(help="Parquet: column of encoded images.")] = "image",
    label_column: Annotated[str, typer.Option(help="Parquet: column of labels, numbers or names.")] = "label",
    sheet: Annotated[str | None, typer.Option(help="Where a PNG of sampled images goes.", metavar="FILE.png")] = None,
    as_json: AsJson = False,
) -> None:
    """Look at every image of a corpus. Counts, sizes, formats, classes, what cannot be read and why."""
    import os

    from ray_ns.corpora.corpus import Corpus
    from ray_ns.corpora.survey import survey
    from ray_ns.observe import Reporter
    from ray_ns.report.terminal import survey as report

    found_corpus = Corpus.scan(corpus, image_column, label_column if labelled else None)
    total = sum(sum(found_corpus.open(shard).group_rows) for shard in found_corpus.shards)
    reporter = Reporter("json" if as_json else "auto")
    reporter.begin("inspect", total, "images")
    sample = report.SAMPLE if sheet else 0
    found = survey(found_corpus, len(os.sched_getaffinity(0)), sample, progress=reporter.progress)
    reporter.end(f"{found.images:,} images, {found.reasons.total():,} of them unreadable")
    if sheet:
        report.save_sheet(found, sheet)
    if as_json:
        printed.give(report.as_json(found_corpus, found))
    else:
        report.show(found_corpus, found)
