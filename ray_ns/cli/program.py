"""The program that the verbs belong to, and what several of them share."""

import os
from typing import Annotated

import typer

from ray_ns import __version__, printed
from ray_ns.errors import InputError

EXIT_CODES = (
    "Exit codes: 0 done; 2 your input, one line says what and how to mend it; 3 stopped, the same command goes on; "
    "4 a stored file is not what was written. Others come from outside: 137 killed (often for want of memory), "
    "130 or 143 stopped before the program began."
)

# --show-completion takes the shell's name. Typer would look which process is the parent, which an editor or a container
# answers wrongly.
os.environ.setdefault("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")

app = typer.Typer(
    help="Noisy Student self-training at pool scale, on Ray.",
    epilog=EXIT_CODES,
    context_settings={"help_option_names": ["-h", "--help"]},
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
