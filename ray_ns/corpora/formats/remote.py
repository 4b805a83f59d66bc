"""Filesystems of URLs. A place that does not answer within seconds is an error of one line."""

import re
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from pyarrow import fs

from ray_ns import exits
from ray_ns.errors import InputError

ANSWER_SECONDS = 12.0  # for opening a place, and again for its first answer
_MENDS = {
    "s3": "Check the bucket, the region and endpoint (?region=...&endpoint_override=host:port, or AWS_REGION and "
    "AWS_ENDPOINT_URL), the credentials (AWS_ACCESS_KEY_ID, AWS_PROFILE) and the network",
    "gs": "Check the bucket, the credentials (GOOGLE_APPLICATION_CREDENTIALS; gs://anonymous@bucket/... for a public "
    "one) and the network",
    "hf": "Check the name (hf://datasets/OWNER/NAME), HF_TOKEN where it is not public, and the network",
}
_MENDS["gcs"] = _MENDS["gs"]
_T = TypeVar("_T")
# Pauses between retries double from 25 ms to 20 s: about three minutes in all.
_PATIENT = fs.AwsStandardS3RetryStrategy(max_attempts=18)


def shown(url: str) -> str:
    """The URL without credentials, for messages."""
    return re.sub(r"://[^/@]*:[^/@]*@", "://", url)


def filesystem(url: str) -> tuple[fs.FileSystem, str]:
    """The filesystem of a URL and the path in it. Raises ``InputError`` if there is none, or it does not answer."""
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
    """The same filesystem with patient retries, for reading; ``found`` itself if it is not S3."""
    if not isinstance(found, fs.S3FileSystem):
        return found
    _, (settings,) = found.__reduce__()  # its settings, which are what is pickled
    given = {name: value for name, value in settings.items() if value not in ("", -1.0)}
    if not given["proxy_options"]["host"]:
        del given["proxy_options"]
    return fs.S3FileSystem(**given, retry_strategy=_PATIENT)


def answered(url: str, question: Callable[[], _T], seconds: float | None = ANSWER_SECONDS) -> _T:
    """The result of ``question``, which sends a request to the URL; ``seconds``: None for no limit.

    It is called in a thread, which is abandoned when the time is up: libraries wait for minutes and cannot be
    interrupted. Raises ``InputError`` if there is no answer or an error; ``ValueError`` and ``ImportError`` pass.
    """
    answer: list[_T] = []
    errors: list[Exception] = []

    def ask() -> None:
        try:
            answer.append(question())
        except Exception as error:  # each library has errors of its own
            errors.append(error)

    thread = threading.Thread(target=ask, name=exits.LEFT_BEHIND, daemon=True)
    thread.start()
    began = time.monotonic()
    while thread.is_alive() and (seconds is None or time.monotonic() - began < seconds):
        thread.join(0.5)  # signals are handled in between
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
