"""``ray-ns`` and ``python -m ray_ns``."""

import os
import sys

from ray_ns.exits import guarded, leave


def main() -> None:
    """Run the command line; errors while it is imported are handled too."""
    if "_RAY_NS_COMPLETE" in os.environ:
        _complete()
    leave(guarded(_command_line, sys.argv[1:]))


def _complete() -> None:
    """Answer a shell that asks how a command line may go on, in its own form, whose tabs ``printed`` would escape.

    Nothing but names and help texts of this package goes out here. Ends the process.
    """
    from ray_ns.cli import app

    app(prog_name="ray-ns")


def _command_line() -> None:
    from ray_ns.cli import command_line

    command_line()


if __name__ == "__main__":
    main()
