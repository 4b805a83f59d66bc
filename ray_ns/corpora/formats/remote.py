"""Filesystems behind URLs: reached within seconds, or one line says that they cannot be."""

import re
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from pyarrow import fs

from ray_ns import exits
from ray_ns.errors import InputError

ANSWER_SECONDS = 12.0  # in which a place opens, and again in which it answers the first question
_MENDS = {
    "s3": "Check the bucket, the region and endpoint (?region=...&endpoint_override=host:port, or AWS_REGION and "
    "AWS_ENDPOINT_URL), the credentials (AWS_ACCESS_KEY_ID, AWS_PROFILE) and the network",
    "gs": "Check the bucket, the credentials (GOOGLE_APPLICATION_CREDENTIALS; gs://anonymous@bucket/... for a public "
    "one) and the network",
    "hf": "Check the name (hf://datasets/OWNER/NAME), HF_TOKEN where it is not public, and the network",
}
_MENDS["gcs"] = _MENDS["gs"]
_T = TypeVar("_T")
# The pauses double from 25 ms to 20 s: some three minutes in all, of which none is waited where all is well.
_PATIENT = fs.AwsStandardS3RetryStrategy(max_attempts=18)


def shown(url: str) -> str:
    """The URL for a person: without the credentials that may stand in it."""
    return re.sub(r"://[^/@]*:[^/@]*@", "://", url)


def filesystem(url: str) -> tuple[fs.FileSystem, str]:
    """The filesystem of a URL and the path in it. Raises ``InputError`` where there is no such, or none answers."""
    scheme = url.partition("://")[0].lower()
    if scheme in {"http", "https", "ftp"}:
        raise InputError(f"{shown(url)}: a web address cannot be listed. Download it, and give the folder.")
    try:
        return answered(url, lambda: fs.FileSystem.from_uri(url))
    except ImportError as error:
        raise InputError(f"{shown(url)}: needs a package ({error}). Install it, or give a path.") from error
    except ValueError as error:
        raise InputError(
            f"{shown(url)}: not a place that pyarrow can read ({_line(error)}). Give a path or an s3://, gs:// or "
            f"hf:// URL."
        ) from error


def patient(found: fs.FileSystem) -> fs.FileSystem:
    """The same filesystem for reading, which outlasts a trouble of minutes; ``found`` itself where it is not S3."""
    if not isinstance(found, fs.S3FileSystem):
        return found
    _, (settings,) = found.__reduce__()  # what it is pickled as: its settings
    given = {name: value for name, value in settings.items() if value not in ("", -1.0)}
    if not given["proxy_options"]["host"]:
        del given["proxy_options"]
    return fs.S3FileSystem(**given, retry_strategy=_PATIENT)


def answered(url: str, question: Callable[[], _T], seconds: float | None = ANSWER_SECONDS) -> _T:
    """What ``question`` returns, which asks the place of the URL; ``seconds``: None where it may take its time.

    It is asked in a thread, which is left behind when time is up: libraries wait for minutes, and nothing interrupts
    them. Raises ``InputError`` where there is no answer or an error, but ``ValueError`` and ``ImportError`` as it is.
    """
    answer: list[_T] = []
    errors: list[Exception] = []

    def ask() -> None:
        try:
            answer.append(question())
        except Exception as error:  # each library has its own
            errors.append(error)

    thread = threading.Thread(target=ask, name=exits.LEFT_BEHIND, daemon=True)
    thread.start()
    began = time.monotonic()
    while thread.is_alive() and (seconds is None or time.monotonic() - began < seconds):
        thread.join(0.5)  # signals are heard in between
    if answer:
        return answer[0]
    mend = _MENDS.get(url.partition("://")[0].lower(), "Check the address, the credentials and the network")
    if not errors:
        raise InputError(f"{shown(url)}: no answer within {seconds:g} s. {mend}.")
    if isinstance(errors[0], (InputError, ValueError, ImportError)):
        raise errors[0]
    raise InputError(f"{shown(url)}: cannot be reached ({_line(errors[0])}). {mend}.") from errors[0]


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return shown(lines[0]) if lines else type(error).__name__
