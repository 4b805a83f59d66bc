"""Objects by key: the protocol that every run's storage follows, and its implementation on a local disk.

Every implementation keeps four promises: a reader sees a whole object or none; ``put_if_absent`` has one winner; a
write that has returned is durable; a failed write leaves nothing under the key.
"""

import contextlib
import errno
import os
import stat
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from ray_ns.errors import InputError, IntegrityError, ResumableError, of_system
from ray_ns.seals import check_key
from ray_ns.store.requests import as_request

TEMPORARY = ".tmp"
STORE_SECONDS = 300.0
NOT_A_FILE = {errno.EISDIR: "is a folder", errno.ELOOP: "is a link that leads to itself"}


class UnreadableError(ResumableError):
    """Something exists but cannot be read: a permission is missing, or a disk fails. It must not count as absent."""


class Aged(NamedTuple):
    """An object in a listing: its size in bytes, and for how many seconds it has been there as it is."""

    key: str
    size: int
    seconds: float


class ObjectStore(Protocol):
    """What a run needs of its storage. Keys are relative POSIX paths (``seals.check_key``).

    A store can be pickled, for workers. Two stores of one address are equal.

    Reading raises ``IntegrityError`` where something else lies in an object's place, such as a folder, and
    ``UnreadableError`` where an object cannot be read.
    """

    url: str

    def __hash__(self) -> int: ...

    def patient(self, seconds: float) -> "ObjectStore":
        """The same store, where no call is tried for longer than ``seconds``."""

    def get(self, key: str) -> bytes | None:
        """The object's bytes, or None where there is none."""

    def open(self, key: str) -> BinaryIO | None:
        """The object as a seekable file, to read parts of it, or None where there is none."""

    def put(self, key: str, data: bytes) -> None:
        """Write or replace. Only for objects that are harmless to replace: content-addressed data, pointers, hints."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Write if the key is free. True if ``key`` holds exactly ``data`` afterwards, whoever wrote it."""

    def delete(self, key: str) -> None:
        """Remove the object, if there is one."""

    def sweep(self) -> None:
        """Remove temporary files of killed writers. Only for a driver that has just taken the lease."""

    def list(self, prefix: str) -> Iterator[str]:
        """Names that begin with ``prefix``, sorted. A hint of what to read and check, not a proof of what exists.

        Sync clients and users add files of their own, so use only names that match the run's own naming in full.
        """

    def ages(self, prefix: str) -> Iterator[Aged]:
        """The same objects with sizes and ages, and below the empty prefix also temporary files of killed writers."""

    def prune(self, folder: str) -> None:
        """Remove the folders that are empty at ``folder`` and below. Only for who holds the lease."""


class LocalStore:
    """Objects as files below ``root``.

    A write goes to a temporary file and fsync; then comes link (``put_if_absent``: atomic, fails where the name exists,
    on POSIX and NFS) or rename (``put``), then fsync of the folder.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).absolute()
        self.url = str(self.root)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.root == self.root

    def __hash__(self) -> int:
        return hash(self.root)

    def patient(self, seconds: float) -> "LocalStore":
        """Itself: a disk answers at once."""
        return self

    def path(self, key: str) -> Path:
        """Where ``key`` lies on disk."""
        return self.root / check_key(key)

    @as_request("get")
    def get(self, key: str) -> bytes | None:
        try:
            return self.path(key).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _unreadable(self.path(key), error) from None

    @as_request("get")
    def open(self, key: str) -> BinaryIO | None:
        try:
            return open(self.path(key), "rb")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _unreadable(self.path(key), error) from None

    @as_request("put")
    def put(self, key: str, data: bytes) -> None:
        with self._written(key, data) as (temporary, target):
            os.replace(temporary, target)

    @as_request("put")
    def put_if_absent(self, key: str, data: bytes) -> bool:
        with self._written(key, data) as (temporary, target):
            try:
                os.link(temporary, target)
            except FileExistsError:
                return self.get(key) == data
        return True

    @as_request("delete")
    def delete(self, key: str) -> None:
        self.path(key).unlink(missing_ok=True)

    @as_request("list")
    def list(self, prefix: str) -> Iterator[str]:
        folder = self.root / prefix if prefix.endswith("/") or not prefix else (self.root / prefix).parent
        keys = sorted(path.relative_to(self.root).as_posix() for path in _files(folder))
        return (key for key in keys if key.startswith(prefix) and key.partition("/")[0] != TEMPORARY)

    def ages(self, prefix: str) -> Iterator[Aged]:
        now = time.time()
        keys = [*self.list(prefix)]
        if not prefix:
            keys += sorted(path.relative_to(self.root).as_posix() for path in _files(self.root / TEMPORARY))
        for key in keys:
            with contextlib.suppress(FileNotFoundError):
                found = os.lstat(self.root / key)
                if not stat.S_ISDIR(found.st_mode):
                    yield Aged(key, found.st_size, now - found.st_mtime)

    def prune(self, folder: str) -> None:
        for place, _, _ in os.walk(self.root / folder, topdown=False):
            with contextlib.suppress(OSError):  # it is not empty
                os.rmdir(place)

    def sweep(self) -> None:
        with contextlib.suppress(OSError):
            for left in list((self.root / TEMPORARY).iterdir()):
                with contextlib.suppress(OSError):
                    left.unlink()

    @contextlib.contextmanager
    def _written(self, key: str, data: bytes) -> Iterator[tuple[Path, Path]]:
        """A durable temporary file with ``data``, removed afterwards, and the path that the data is for."""
        target = self.path(key)
        temporary = self.root / TEMPORARY / uuid.uuid4().hex
        try:
            _make_folder(temporary.parent)
            _make_folder(target.parent)
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield temporary, target
            _fsync_folder(target.parent)
        except OSError as error:
            raise ResumableError(
                f"{target}: cannot be written ({error.strerror or error}). Nothing stored is lost: free space or "
                f"mend the permission, then run the same command again."
            ) from None
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()


def _files(folder: Path) -> Iterator[Path]:
    """Everything below ``folder`` that has an object's name: files, links, and folders called ``*.json``.

    Raises ``UnreadableError`` where a folder cannot be listed.
    """

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            raise _unreadable(Path(error.filename), error) from None

    for place, folders, names in os.walk(folder, onerror=refuse):
        yield from (Path(place, name) for name in (*names, *folders) if name in names or name.endswith(".json"))


def _unreadable(path: Path, error: OSError) -> IntegrityError | UnreadableError:
    if error.errno in NOT_A_FILE:
        return IntegrityError(
            f"{path}: {NOT_A_FILE[error.errno]}; a file of the run belongs here. Restore it from a backup, or delete "
            f"the stage's folder and run again to make it anew."
        )
    return UnreadableError(
        f"{path}: cannot be read ({error.strerror or error}). Mend the disk or the permission, then run the same "
        f"command again."
    )


def _make_folder(folder: Path) -> None:
    """Make ``folder`` and its parents, with a durable entry of each in its parent."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _fsync_folder(folder.parent)


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_store(url: str, seconds: float = STORE_SECONDS) -> ObjectStore:
    """The store of a run directory: a local path or ``s3://bucket/prefix``; ``InputError`` for any other scheme.

    ``seconds``: for how long a request over a network is tried.
    """
    scheme, separator, rest = url.partition("://")
    if scheme == "s3" and separator:
        if not rest.partition("/")[0]:
            raise InputError(f"run.dir={url}: names no bucket. Write s3://bucket/folder.")
        from ray_ns.store.s3 import S3Store

        return S3Store(url, seconds)
    if separator and scheme != "file":
        raise InputError(f"run.dir={url}: a run lives in a local directory or in s3://, not in {scheme}://.")
    path = url.removeprefix("file://")
    try:
        if not stat.S_ISDIR(os.stat(path).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    except FileNotFoundError:
        pass  # a run that begins makes it
    except (OSError, ValueError) as error:  # a NUL, say
        refused = of_system(error, path) if isinstance(error, OSError) else None
        raise refused or InputError(f"{path}: cannot be a path ({error}). Give another.") from None
    return LocalStore(path)
