"""Objects in S3, or in a store that speaks its protocol, with the same promises as on a local disk.

``put_if_absent`` is a conditional PUT (``If-None-Match: *``). Credentials, region and endpoint come from the
environment as boto3 reads them (``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL``, ...) and are written nowhere.
"""

import io
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, TypeVar

from ray_ns.errors import InputError, ResumableError
from ray_ns.seals import check_key

_T = TypeVar("_T")
ATTEMPTS = 10


class S3Store:
    """Objects below ``s3://bucket/prefix``."""

    def __init__(self, url: str) -> None:
        try:
            import boto3
            from botocore.config import Config
        except ImportError as error:
            raise InputError(f"run.dir={url} needs boto3: pip install 'ray-ns[s3]'") from error
        self.url = url.rstrip("/")
        self._bucket, _, prefix = self.url.removeprefix("s3://").partition("/")
        self._prefix = f"{prefix}/" if prefix else ""
        patient = Config(
            retries={"max_attempts": ATTEMPTS, "mode": "standard"},
            connect_timeout=10,
            read_timeout=60,
            max_pool_connections=32,
        )
        self._client: Any = boto3.client("s3", config=patient)

    def get(self, key: str) -> bytes | None:
        # boto3 retries the request but not a body that breaks off, so the whole read is tried again.
        def read() -> bytes | None:
            try:
                return bytes(self._client.get_object(Bucket=self._bucket, Key=self._key(key))["Body"].read())
            except self._client.exceptions.NoSuchKey:
                return None

        return self._tried(key, "read", read)

    def open(self, key: str) -> BinaryIO | None:
        data = self.get(key)  # one request: several for parts of it would take longer than the rest of a shard
        return None if data is None else io.BytesIO(data)

    def put(self, key: str, data: bytes) -> None:
        self._tried(key, "written", lambda: self._client.put_object(Bucket=self._bucket, Key=self._key(key), Body=data))

    def put_if_absent(self, key: str, data: bytes) -> bool:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            self._client.put_object(Bucket=self._bucket, Key=self._key(key), Body=data, IfNoneMatch="*")
        except (ClientError, BotoCoreError) as error:
            # A retry inside boto3 may be told 412 about its own first try: what the key holds now decides.
            held = self.get(key)
            if held is None:
                raise self._failed(key, "written", error) from None
            return held == data
        return True

    def delete(self, key: str) -> None:
        self._tried(key, "deleted", lambda: self._client.delete_object(Bucket=self._bucket, Key=self._key(key)))

    def sweep(self) -> None:
        """Nothing to do: a request that breaks off leaves nothing."""

    def list(self, prefix: str) -> Iterator[str]:
        def pages() -> list[str]:
            paginator = self._client.get_paginator("list_objects_v2")
            found = paginator.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix)
            return [it["Key"].removeprefix(self._prefix) for page in found for it in page.get("Contents", ())]

        return iter(self._tried(prefix, "listed", pages))

    def _key(self, key: str) -> str:
        return self._prefix + check_key(key)

    def _tried(self, key: str, what: str, call: Callable[[], _T]) -> _T:
        from botocore.exceptions import BotoCoreError, ClientError

        for attempt in range(3):
            try:
                return call()
            except ClientError as error:
                raise self._failed(key, what, error) from None
            except BotoCoreError as error:
                if attempt == 2:
                    raise self._failed(key, what, error) from None
        raise AssertionError("the last attempt returns or raises")

    def _failed(self, key: str, what: str, error: Exception) -> ResumableError:
        return ResumableError(
            f"{self.url}/{key} cannot be {what} ({error}). Nothing stored is lost: mend the access or wait for the "
            f"store, then run the same command again."
        )
