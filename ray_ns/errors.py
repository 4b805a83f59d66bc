"""The errors that users see, each with its exit code."""

import errno


class RayNsError(Exception):
    """Base of every error raised on purpose. Its text is one line: what is wrong, where, and how to fix it."""

    exit_code = 3


class InputError(RayNsError):
    """The user's input (a config value, a path, a file) cannot be used. The user must change it and run again."""

    exit_code = 2


class RepeatingError(InputError):
    """An unexpected error that the same command would meet again."""


class ResumableError(RayNsError):
    """The run stopped early. The same command continues from what is committed."""

    exit_code = 3


class IntegrityError(RayNsError):
    """Something that a commit names does not match its hash."""

    exit_code = 4


# The system's error, our error, and how to fix it.
_MENDS: dict[int, tuple[type[RayNsError], str]] = {
    errno.ENOSPC: (ResumableError, "Free space there, then run the same command again."),
    errno.EDQUOT: (ResumableError, "Free space there, or have the quota raised, then run the same command again."),
    errno.EIO: (ResumableError, "Check the disk, then run the same command again."),
    errno.ESTALE: (ResumableError, "Mount it again, then run the same command again."),
    errno.ENOMEM: (ResumableError, "Free memory, then run the same command again."),
    errno.EMFILE: (InputError, "Allow more open files (ulimit -n)."),
    errno.EACCES: (InputError, "Change the permissions, or give another place."),
    errno.EPERM: (InputError, "Change the permissions, or give another place."),
    errno.EROFS: (InputError, "Give a place that can be written."),
    errno.ENAMETOOLONG: (InputError, "Give a shorter name."),
    errno.ELOOP: (InputError, "Fix the links: they lead in a circle."),
    errno.ENOTDIR: (InputError, "A file lies where a folder is meant: move it, or give another place."),
    errno.EISDIR: (InputError, "A folder lies where a file is meant: give the file."),
    errno.EEXIST: (InputError, "A file lies where a folder is meant: move it, or give another place."),
    errno.ENOENT: (InputError, "Give a path that exists."),
}


def of_system(error: OSError, place: object, wish: str = "used") -> RayNsError | None:
    """The operating system's error at ``place`` as one of ours that says how to fix it; None if it is not listed."""
    if error.errno not in _MENDS:
        return None
    kind, mend = _MENDS[error.errno]
    return kind(f"{place or 'a file'}: cannot be {wish} ({error.strerror}). {mend}")
