"""Objects in S3, or in a store that speaks its protocol, with the same promises as on a local disk.

``put_if_absent`` is a conditional PUT (``If-None-Match: *``). Credentials, region and endpoint come from the
environment as boto3 reads them (``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL``, ...) and are written nowhere.

Every call is retried until its deadline, with random pauses that grow. boto3's own retries are off: they do not cover
a body that breaks off, and their quota would be used up by earlier trouble. Until a first call has succeeded the
deadline is short, and every failure counts as a mistake in the user's input.
"""

import io
import random
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, BinaryIO, TypeVar

from ray_ns import measures
from ray_ns.errors import InputError, ResumableError
from ray_ns.seals import check_key
from ray_ns.store.objects import STORE_SECONDS, Aged
from ray_ns.store.requests import Verb, request

_T = TypeVar("_T")
FIRST_SECONDS = 15.0  # the deadline until a call has succeeded
PAUSES = (0.1, 10.0)  # seconds: the longest first pause, the longest of all
# Errors that do not go away by waiting, and what to do about each.
MENDS = {
    "NoSuchBucket": "create the bucket, or give another one",
    "InvalidBucketName": "give the bucket's name as it is",
    "AccessDenied": "give these credentials the right to read, write, list and delete there",
    "InvalidAccessKeyId": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to credentials of this store",
    "SignatureDoesNotMatch": "set AWS_SECRET_ACCESS_KEY to the secret of AWS_ACCESS_KEY_ID",
    "ExpiredToken": "renew the credentials",
    "PermanentRedirect": "set AWS_REGION to the bucket's",
    "AuthorizationHeaderMalformed": "set AWS_REGION to the bucket's",
    "RequestTimeTooSkewed": "set this machine's clock",
    "NoCredentialsError": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "PartialCredentialsError": "set both AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "CredentialRetrievalError": "see that the source of the credentials answers",
    "ProfileNotFound": "set AWS_PROFILE to a profile that exists",
    "NoRegionError": "set AWS_REGION",
    "ParamValidationError": "give a bucket's name: s3://bucket/folder",
}
VERBS: dict[str, Verb] = {"read": "get", "written": "put", "listed": "list", "deleted": "delete"}
TAKEN = {"PreconditionFailed", "ConditionalRequestConflict"}


class _GarbledError(Exception):
    """An answer that is not an S3 server's: a proxy's page, or nothing at all."""


class S3Store:
    """Objects below ``s3://bucket/prefix``. ``seconds``: for how long a call is tried.

    Only the address is pickled. A worker that unpickles it takes it that the store has answered before.
    """

    def __init__(self, url: str, seconds: float = STORE_SECONDS, answered: bool = False) -> None:
        try:
            import boto3
            from botocore.config import Config
            from botocore.exceptions import BotoCoreError
        except ImportError as error:
            raise InputError(f"run.dir={url} needs boto3: pip install 'ray-ns[s3]'") from error
        self.url = url.rstrip("/")
        self._seconds, self._answered = seconds, answered
        self._bucket, _, prefix = self.url.removeprefix("s3://").partition("/")
        self._prefix = f"{prefix}/" if prefix else ""
        once = Config(
            retries={"total_max_attempts": 1, "mode": "standard"},
            connect_timeout=5,
            read_timeout=30,
            max_pool_connections=32,
        )
        try:
            self._client: Any = boto3.client("s3", config=once)
        except (BotoCoreError, ValueError) as error:
            raise self._refused("", "reached", error) from None

    def __reduce__(self) -> tuple[Any, ...]:
        return S3Store, (self.url, self._seconds, True)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.url == self.url

    def __hash__(self) -> int:
        return hash(self.url)

    def patient(self, seconds: float) -> "S3Store":
        """The same store, where no call is tried for longer than ``seconds``."""
        return S3Store(self.url, min(seconds, self._seconds), self._answered)

    def get(self, key: str) -> bytes | None:
        return self._tried(key, "read", lambda: self._read(key))

    def open(self, key: str) -> BinaryIO | None:
        data = self.get(key)  # one request for all of it: several for parts would take longer
        return None if data is None else io.BytesIO(data)

    def put(self, key: str, data: bytes) -> None:
        self._tried(key, "written", lambda: self._write(key, data))

    def put_if_absent(self, key: str, data: bytes) -> bool:
        from botocore.exceptions import ClientError

        def write() -> bool:
            try:
                self._write(key, data, IfNoneMatch="*")
            except ClientError as error:
                if error.response["Error"]["Code"] not in TAKEN:
                    raise
                # This call's own earlier try may hold the key, if its answer was lost: the content decides.
                held = self._read(key)
                if held is None:
                    raise
                return held == data
            return True

        return self._tried(key, "written", write)

    def delete(self, key: str) -> None:
        self._tried(key, "deleted", lambda: self._client.delete_object(Bucket=self._bucket, Key=self._key(key)))

    def sweep(self) -> None:
        """Nothing to do: a request that breaks off leaves nothing."""

    def list(self, prefix: str) -> Iterator[str]:
        return (it.key for it in self._listed(prefix))

    def ages(self, prefix: str) -> Iterator[Aged]:
        return (it for it in self._listed(prefix) if not it.key.endswith("/"))

    def prune(self, folder: str) -> None:
        """Remove the empty objects that pyarrow and others put in the place of folders."""
        keys = list(self.list(f"{folder}/"))
        for key in [it for it in keys if it.endswith("/") and not any(_is_within(other, it) for other in keys)]:
            named = {"Bucket": self._bucket, "Key": self._prefix + key}
            self._tried(key, "deleted", partial(self._client.delete_object, **named))

    def _listed(self, prefix: str) -> Iterator[Aged]:
        def pages() -> list[Aged]:
            paginator = self._client.get_paginator("list_objects_v2")
            found = []
            for page in paginator.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
                if page.get("Name") != self._bucket or "IsTruncated" not in page:
                    raise _GarbledError("the answer is no listing")
                now = _answered_at(page)
                for it in page.get("Contents", ()):
                    written = it.get("LastModified", now)
                    found.append(
                        Aged(it["Key"].removeprefix(self._prefix), it["Size"], (now - written).total_seconds())
                    )
            return found

        return iter(self._tried(prefix, "listed", pages))

    def _read(self, key: str) -> bytes | None:
        try:
            found = self._client.get_object(Bucket=self._bucket, Key=self._key(key))
        except self._client.exceptions.NoSuchKey:
            return None
        return bytes(self._checked(found)["Body"].read())

    def _write(self, key: str, data: bytes, **conditions: str) -> None:
        self._checked(self._client.put_object(Bucket=self._bucket, Key=self._key(key), Body=data, **conditions))

    def _checked(self, answer: Any) -> Any:
        if not answer.get("ETag"):
            raise _GarbledError("the answer is not that of an S3 server")
        return answer

    def _key(self, key: str) -> str:
        return self._prefix + check_key(key)

    def _tried(self, key: str, what: str, call: Callable[[], _T]) -> _T:
        """What ``call`` returns, retried until the deadline.

        Raises ``ResumableError``; ``InputError`` where no call has succeeded yet.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        until = time.monotonic() + (self._seconds if self._answered else min(self._seconds, FIRST_SECONDS))
        pause, longest = PAUSES
        while True:
            try:
                with request(VERBS[what]):
                    found = call()
                self._answered = True
                return found
            except (ClientError, BotoCoreError, OSError, _GarbledError) as error:
                if not self._answered and _code(error) in MENDS:
                    raise self._refused(key, what, error) from None
                if time.monotonic() + pause > until:
                    raise (self._failed if self._answered else self._refused)(key, what, error) from None
            measures.count("ns_retries", what="store")
            time.sleep(random.uniform(pause / 2, pause))  # noqa: S311 - no secret
            pause = min(2 * pause, longest)

    def _refused(self, key: str, what: str, error: Exception) -> InputError:
        mend = MENDS.get(_code(error), "check the URL, AWS_ENDPOINT_URL and the network")
        return InputError(f"{self.url}/{key} cannot be {what} ({error}): {mend}.")

    def _failed(self, key: str, what: str, error: Exception) -> ResumableError:
        return ResumableError(
            f"{self.url}/{key} cannot be {what}, tried for {self._seconds:.0f} s ({error}). Nothing stored is lost: "
            f"mend the access or wait for the store, then run the same command again."
        )


def _answered_at(answer: Any) -> datetime:
    """When the server says it answered: ages are by its own clock. This machine's where it does not say."""
    try:
        return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"]).astimezone(UTC)
    except (KeyError, TypeError, ValueError):
        return datetime.now(UTC)


def _is_within(key: str, folder: str) -> bool:
    """Whether an object, not one in the place of a folder, lies below the one in the place of ``folder``."""
    return key.startswith(folder) and not key.endswith("/")


def _code(error: Exception) -> str:
    """The name that S3 or botocore gives a failure."""
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code")) if isinstance(response, dict) else type(error).__name__
