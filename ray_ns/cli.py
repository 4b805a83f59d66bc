"""The command line: ``ray-ns run | check | select | ingest | status | verify | inspect | config | demo-data``."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import TyperException

from ray_ns import __version__, printed
from ray_ns.errors import InputError, IntegrityError
from ray_ns.exits import guarded, leave

EXIT_CODES = (
    "Exit codes: 0 done; 2 your input, one line says what and how to mend it; 3 stopped, the same command goes on; "
    "4 a stored file is not what was written. Others come from outside: 137 killed (often for want of memory), "
    "130 or 143 stopped before the program began."
)

app = typer.Typer(
    help="Noisy Student self-training at pool scale, on Ray.",
    epilog=EXIT_CODES,
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        printed.say(f"ray-ns {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def no_verb(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which.")] = False,
) -> None:
    """Noisy Student self-training at pool scale, on Ray."""
    if context.invoked_subcommand is None:
        for line in context.get_help().splitlines():
            printed.say(line)
        raise InputError("no command is given.")


RunDirectory = Annotated[str, typer.Argument(help="The run directory (run.dir of its config).", metavar="RUN")]
AsJson = Annotated[bool, typer.Option("--json", help="For machines: JSON on stdout, JSON lines of progress on stderr.")]


@app.command()
def run(
    config: Annotated[str, typer.Argument(help="A YAML config; 'ray-ns config' prints all settings.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="section.key=value, laid over the config.")] = None,
    until: Annotated[
        str | None, typer.Option(help="End after this stage of round 1: label, select, train, ...", metavar="STAGE")
    ] = None,
    grow: Annotated[bool, typer.Option("--grow", help="Take in shards that the pool has gained.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run the loop, or resume it. The same command goes on from whatever was committed."""
    from ray_ns.engine.opening import drive
    from ray_ns.report.terminal.run import show

    with drive(config, overrides or [], "json" if as_json else "auto", grow, until) as opened:
        from ray_ns.engine.turns import carry_out

        outcome = carry_out(opened)
        if as_json:
            printed.give(outcome.as_json())
        elif outcome.complete:
            show(outcome, opened.store.url, [opened.seconds_of(it.name) for it in outcome.all])
        else:
            printed.say(f"ended after --until {until}; run again without it to go on.")


@app.command()
def check(
    config: Annotated[str, typer.Argument(help="A YAML config; 'ray-ns config' prints all settings.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="section.key=value, laid over the config.")] = None,
    as_json: AsJson = False,
) -> None:
    """Look whether a run would work. One step of every stage in this process, without Ray and without a write."""
    from ray_ns.engine.check import check as look

    for found in look(config, overrides or []):
        if as_json:
            printed.give({"what": found.what, **found.figures})
        else:
            printed.say(f"{found.what:<16} {found.line}")


@app.command()
def select(
    config: Annotated[str, typer.Argument(help="The config of a run whose pool is labelled.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="select.key=value, laid over the config.")] = None,
    number: Annotated[int | None, typer.Option("--round", help="Whose labels; default: the last round's.")] = None,
    as_json: AsJson = False,
) -> None:
    """Filter and balance a run's labels again. No teacher runs; the select settings may be others than the run's."""
    from ray_ns.engine.opening import reopen
    from ray_ns.engine.stages.select import select_again
    from ray_ns.report.terminal import selection

    with reopen(config, overrides or [], "json" if as_json else "auto") as run:
        found = select_again(run, number)
        if as_json:
            printed.give(selection.as_json(found))
        else:
            selection.show(found, run.class_names)


@app.command()
def ingest(
    source: Annotated[str, typer.Argument(help="The corpus to pack.", metavar="SRC")],
    destination: Annotated[str, typer.Argument(help="An empty folder, or what this command began.", metavar="DST")],
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
    )
    commits = packed(wanted, append, "json" if as_json else "auto")
    if as_json:
        printed.give(report.as_json(commits))
    else:
        report.show(destination, commits)


@app.command()
def status(run: RunDirectory, as_json: AsJson = False) -> None:
    """Say where a run stands. Which stage, how far, how fast, and how long it will take."""
    from ray_ns.engine import ingest, stages
    from ray_ns.report.terminal import status as report
    from ray_ns.store.status import read_status

    found = read_status(run, [*(it.name for it in ingest.STAGES), *stages.names()])
    if as_json:
        printed.give(found)
    else:
        report.show(found)


@app.command()
def verify(run: RunDirectory, as_json: AsJson = False) -> None:
    """Re-hash everything that the run's commits name. Exit 0: all as written; 4: something is not."""
    from ray_ns.store.objects import open_store
    from ray_ns.store.verify import verify as verified

    checked, faults = 0, {}
    for key, fault in verified(open_store(run)):
        checked += 1
        if fault is not None:
            faults[key] = fault
    if as_json:
        printed.give({"checked": checked, "faults": faults})
    for key in list(faults)[:20]:
        printed.tell(f"damaged: {key}", "damaged")
    if faults:
        raise IntegrityError(
            f"{len(faults)} of {checked} objects are not as they were written: {next(iter(faults.values()))}"
        )
    if not as_json:
        printed.say(f"{checked} objects checked, all as they were written")


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


@app.command()
def config() -> None:
    """Print every setting. With its meaning, range and default, as commented YAML."""
    from ray_ns.config.show import schema_as_yaml

    for line in schema_as_yaml().splitlines():
        printed.say(line)


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


def command_line() -> None:
    """Run the command line. Raises ``InputError`` where it cannot be read."""
    for word in sys.argv[1:]:
        if not word.isprintable() and any("\ud800" <= it <= "\udfff" for it in word):
            raise InputError(f"{word}: the name is not UTF-8. Rename the file.")
    try:
        app(standalone_mode=False)
    except TyperException as error:
        context = getattr(error, "ctx", None)
        verb = context.command_path if context is not None else "ray-ns"
        raise InputError(f"{error.format_message()} See '{verb} -h'.") from None


def main() -> None:
    """The program, for who has imported this already; ``__main__`` looks after the moments before too."""
    leave(guarded(command_line, sys.argv[1:]))
