"""The command line: one verb a file. ``VERBS`` is their order in ``ray-ns -h``."""

import importlib
import sys

from typer.exceptions import TyperException

from ray_ns.cli.program import app
from ray_ns.errors import InputError
from ray_ns.exits import guarded, leave

VERBS = (
    *("run", "check", "select", "labels", "predict", "evaluate", "study", "export", "ingest"),
    *("status", "compare", "verify", "gc", "inspect", "config", "demo_data", "two_moons"),
)

for _verb in VERBS:
    importlib.import_module(f"{__name__}.{_verb}")


def command_line() -> None:
    """Run the command line. Raises ``InputError`` where it cannot be read."""
    for word in sys.argv[1:]:
        if not word.isprintable() and any("\ud800" <= it <= "\udfff" for it in word):
            raise InputError(f"{word}: the name is not UTF-8. Rename the file.")
    try:
        app(prog_name="ray-ns", standalone_mode=False)
    except TyperException as error:
        context = getattr(error, "ctx", None)
        verb = context.command_path if context is not None else "ray-ns"
        raise InputError(f"{error.format_message()} See '{verb} -h'.") from None


def main() -> None:
    """The program, for who has imported this already; ``__main__`` looks after the moments before too."""
    leave(guarded(command_line, sys.argv[1:]))
