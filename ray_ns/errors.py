"""The errors a user meets. Each carries the exit code that the command line returns for it."""

import errno


class RayNsError(Exception):
    """Base of every error raised on purpose; its text is one line for the user: what, where, the mend."""

    exit_code = 3


class InputError(RayNsError):
    """The user's input cannot be used (a config value, a path, a file): mend it and run again."""

    exit_code = 2


class RepeatingError(InputError):
    """Code failed over what it was given, unforeseen by us, and the same command would meet it again."""


class ResumableError(RayNsError):
    """The run stopped before its end and loses nothing: the same command goes on from there."""

    exit_code = 3


class IntegrityError(RayNsError):
    """Something that a commit names does not match its hash."""

    exit_code = 4


# What the system says, whose turn it is, and the mend.
_MENDS: dict[int, tuple[type[RayNsError], str]] = {
    errno.ENOSPC: (ResumableError, "Free space there, then run the same command again."),
    errno.EDQUOT: (ResumableError, "Free space there, or have the quota raised, then run the same command again."),
    errno.EIO: (ResumableError, "Look after the disk, then run the same command again."),
    errno.ESTALE: (ResumableError, "Mount it again, then run the same command again."),
    errno.ENOMEM: (ResumableError, "Free memory, then run the same command again."),
    errno.EMFILE: (InputError, "Allow more open files (ulimit -n)."),
    errno.EACCES: (InputError, "Mend the permission, or give another place."),
    errno.EPERM: (InputError, "Mend the permission, or give another place."),
    errno.EROFS: (InputError, "Give a place that can be written."),
    errno.ENAMETOOLONG: (InputError, "Give a shorter name."),
    errno.ELOOP: (InputError, "Mend the links: they lead in a circle."),
    errno.ENOTDIR: (InputError, "A file lies where a folder is meant: move it, or give another place."),
    errno.EISDIR: (InputError, "A folder lies where a file is meant: give the file."),
    errno.EEXIST: (InputError, "A file lies where a folder is meant: move it, or give another place."),
    errno.ENOENT: (InputError, "Give a path that exists."),
}


def of_system(error: OSError, place: object, wish: str = "used") -> RayNsError | None:
    """What the operating system refused at ``place`` as an error of ours with its mend; None where none is known."""
    if error.errno not in _MENDS:
        return None
    kind, mend = _MENDS[error.errno]
    return kind(f"{place or 'a file'}: cannot be {wish} ({error.strerror}). {mend}")
