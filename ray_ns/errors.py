"""The errors a user meets. Each carries the exit code that the command line returns for it."""


class RayNsError(Exception):
    """Base of every error raised on purpose; its text is one line for the user: what, where, the mend."""

    exit_code = 3


class InputError(RayNsError):
    """The user's input cannot be used (a config value, a path, a file): mend it and run again."""

    exit_code = 2


class ResumableError(RayNsError):
    """The run stopped before its end and loses nothing: the same command goes on from there."""

    exit_code = 3


class IntegrityError(RayNsError):
    """Something that a commit names does not match its hash."""

    exit_code = 4
