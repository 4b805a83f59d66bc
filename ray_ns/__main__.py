"""``ray-ns`` and ``python -m ray_ns``."""

import sys

from ray_ns.exits import guarded, leave


def main() -> None:
    """Run the command line; errors while it is imported are handled too."""
    leave(guarded(_command_line, sys.argv[1:]))


def _command_line() -> None:
    from ray_ns.cli import command_line

    command_line()


if __name__ == "__main__":
    main()
