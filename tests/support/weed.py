"""A real S3 server on loopback for tests: SeaweedFS in one process, gone with the test."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

KEYS = {"AWS_ACCESS_KEY_ID": "testkey", "AWS_SECRET_ACCESS_KEY": "testsecret", "AWS_REGION": "us-east-1"}


def free_ports(count: int) -> list[int]:
    """Ports below 10000 (Ray's workers take the ones above) whose gRPC twin 10000 above is free as well."""
    found: list[int] = []
    # Two workers of one test run, whose numbers are near each other, must not look in the same place at the same time.
    for port in range(8300 + os.getpid() * 37 % 1000, 9990):
        with contextlib.ExitStack() as stack:
            try:
                for number in (port, port + 10000):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", number))
            except OSError:
                continue
            found.append(port)
        if len(found) == count:
            return found
    raise AssertionError("no free ports")


def has_bucket(env: dict[str, str], bucket: str) -> bool:
    """Whether the server answers and has made its bucket, which it does a while after it answers."""
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    client = boto3.client(
        "s3",
        endpoint_url=env["AWS_ENDPOINT_URL"],
        aws_access_key_id=env["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
        region_name=env["AWS_REGION"],
    )
    try:
        client.put_object(Bucket=bucket, Key="up", Body=b"")
    except (BotoCoreError, ClientError):
        return False
    return True


class Weed(dict[str, str]):
    """The environment that leads boto3 to a server with ``bucket``, and the server, which may go and come back."""

    def __init__(self, folder: Path, bucket: str) -> None:
        s3, master, volume, filer, admin = free_ports(5)
        super().__init__({**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{s3}"})
        self._folder, self._bucket = folder, bucket
        identity = {"accessKey": KEYS["AWS_ACCESS_KEY_ID"], "secretKey": KEYS["AWS_SECRET_ACCESS_KEY"]}
        users = [{"name": "test", "credentials": [identity], "actions": ["Admin", "Read", "List", "Tagging", "Write"]}]
        (folder / "s3.json").write_text(json.dumps({"identities": users}))
        (folder / "data").mkdir()
        self._command = [
            *(str(Path(sys.executable).with_name("weed")), "-logtostderr=true", "mini", f"-dir={folder / 'data'}"),
            *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false", "-admin.ui=false", "-webdav=false"),
            *("-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.autoCreateBucket=false", f"-bucket={bucket}"),
            *(f"-s3.port={s3}", f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}"),
            *(f"-admin.port={admin}", f"-s3.config={folder / 's3.json'}"),
            *(f"-s3.localSocket={folder / 's3.sock'}", f"-filer.localSocket={folder / 'filer.sock'}"),
        ]

    def start(self) -> None:
        """Return when it answers and has its bucket."""
        with (self._folder / "weed.log").open("ab") as log:
            self._server = subprocess.Popen(
                self._command, stdout=log, stderr=log, env={**os.environ, "GOMEMLIMIT": "256MiB"}
            )
        deadline = time.monotonic() + 60
        while not has_bucket(self, self._bucket):
            assert self._server.poll() is None, (self._folder / "weed.log").read_text()[-2000:]
            assert time.monotonic() < deadline, "the S3 server did not come up"
            time.sleep(0.1)

    def kill(self) -> None:
        """SIGKILL: what it has not written is lost with it."""
        self._server.kill()
        self._server.wait()


@contextlib.contextmanager
def weed(folder: Path, bucket: str) -> Iterator[Weed]:
    """A server on loopback while the block runs."""
    server = Weed(folder, bucket)
    server.start()
    try:
        yield server
    finally:
        server.kill()
