"""What an S3 server, or whatever stands before it, may answer instead: tried again until the deadline, or refused."""

import pickle
import random
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest
from support.measured import measured

from ray_ns.errors import InputError, ResumableError
from ray_ns.store import s3
from ray_ns.store.objects import ObjectStore, open_store

ERROR = '<?xml version="1.0"?><Error><Code>{}</Code><Message>no</Message></Error>'
LISTING = (
    '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>runs</Name>'
    "<Prefix></Prefix><KeyCount>1</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>"
    "<Contents><Key>x/k</Key><Size>4</Size></Contents></ListBucketResult>"
)
HTML = "<html><body>Sign in to the network</body></html>"


class Server:
    """Objects in memory behind S3's protocol; ``faults`` says how each of the next requests goes wrong."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}
        self.faults: list[Any] = []
        self.listing, self.date = LISTING, ""
        self.requests = 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server.answer(self)

            do_PUT = do_DELETE = do_GET

            def log_message(self, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.requests += 1
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        if "aws-chunked" in (request.headers.get("Content-Encoding") or ""):
            size, _, rest = body.partition(b"\r\n")
            body = rest[: int(size.partition(b";")[0], 16)]
        fault = self.faults.pop(0) if self.faults else None
        if fault == "reset":
            request.connection.close()
            request.close_connection = True
            return
        if isinstance(fault, tuple):
            status, text = fault
            self.send(request, status, text.encode())
            return
        path = request.path.partition("?")[0]
        status, headers, data = 200, {"ETag": '"e"'}, b""
        if request.command == "PUT":
            if "If-None-Match" in request.headers and path in self.held:
                status, data = 412, ERROR.format("PreconditionFailed").encode()
            else:
                self.held[path] = body
        elif "list-type=2" in request.path:
            data = self.listing.encode()
        elif path in self.held:
            data = self.held[path]
        else:
            status, data = 404, ERROR.format("NoSuchKey").encode()
        if fault == "lost":  # what was asked for is done, and nobody learns of it
            request.connection.close()
            request.close_connection = True
            return
        self.send(request, status, data, headers, cut=fault == "cut")

    def send(
        self, request: Any, status: int, data: bytes, headers: dict[str, str] | None = None, cut: bool = False
    ) -> None:
        request.send_response_only(status)
        request.send_header("Date", self.date or request.date_time_string())
        for name, value in (headers or {}).items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data[: len(data) // 2] if cut else data)
        if cut:
            request.wfile.flush()
            request.connection.close()
            request.close_connection = True


@pytest.fixture(scope="module")
def one_server() -> Iterator[Server]:
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def server(one_server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    server = one_server
    server.faults, server.held, server.listing, server.date = [], {}, LISTING, ""
    environment = {"AWS_ENDPOINT_URL": server.url, "AWS_REGION": "us-east-1"}
    environment |= {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return server


class Clock:
    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.pauses.append(seconds)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(s3, "time", SimpleNamespace(monotonic=lambda: clock.now, sleep=clock.sleep))
    random.seed(0)
    return clock


@pytest.fixture(scope="module")
def opened(one_server: Server) -> list[ObjectStore]:
    return []


@pytest.fixture
def store(server: Server, opened: list[ObjectStore]) -> ObjectStore:
    """A store that has answered: one for all tests, as one trouble must not make it less patient in the next."""
    store = opened[0] if opened else open_store("s3://runs/x")
    opened[:] = [store]
    store.put("k", b"data")
    server.requests = 0
    return store


TROUBLES: list[Any] = [
    *("reset", "lost", "cut"),
    *((status, ERROR.format(code)) for status, code in ((500, "InternalError"), (503, "SlowDown"), (503, "x"))),
    *((400, ERROR.format("RequestTimeout")), (429, ""), (502, HTML), (504, "")),
    *((200, ""), (200, HTML), (403, ERROR.format("AccessDenied")), (404, ERROR.format("NoSuchBucket"))),
]
CALLS: dict[str, Callable[[Any], Any]] = {
    "get": lambda store: store.get("k"),
    "put": lambda store: store.put("k", b"data"),
    "put_if_absent": lambda store: store.put_if_absent("k", b"data"),
    "new": lambda store: store.put_if_absent("new", b"data"),
    "taken": lambda store: store.put_if_absent("k", b"other"),
    "list": lambda store: list(store.list("")),
}
WANTED = {"get": b"data", "put": None, "put_if_absent": True, "new": True, "taken": False, "list": ["k"]}


def test_each_try_is_a_request_and_each_further_one_a_retry(server: Server, store: ObjectStore) -> None:
    server.faults = [(503, ERROR.format("SlowDown"))] * 3
    with measured() as found:
        assert store.get("k") == b"data"
    assert found.total("ns_store_requests", verb="get", outcome="failed") == 3
    assert found.total("ns_store_requests", verb="get", outcome="ok") == 1
    assert found.total("ns_retries", what="store") == 3
    assert found.times("ns_store_seconds") == 4


@pytest.mark.parametrize("trouble", TROUBLES, ids=str)
@pytest.mark.parametrize("call", CALLS)
def test_a_trouble_that_lasts_is_outlasted_again_and_again(
    server: Server, store: ObjectStore, call: str, trouble: Any, clock: Clock
) -> None:
    server.held.pop("/runs/x/new", None)
    server.faults = [trouble] * 6
    assert CALLS[call](store) == WANTED[call]
    assert not server.faults or trouble == "cut"  # an answer without a body cannot be cut
    assert server.held["/runs/x/k"] == b"data"


@pytest.mark.parametrize("call", ["get", "new", "list"])
@pytest.mark.parametrize("trouble", ["reset", (503, ERROR.format("SlowDown")), (200, HTML)], ids=str)
def test_a_trouble_that_does_not_end_ends_the_call_at_its_deadline(
    server: Server, store: ObjectStore, call: str, trouble: Any, clock: Clock
) -> None:
    server.faults = [trouble] * 10_000
    with pytest.raises(ResumableError, match="s3://runs/x/") as caught:
        CALLS[call](store)
    assert caught.value.exit_code == 3
    assert 250 < clock.now <= 300
    assert len(clock.pauses) < 80, "requests are not hammered"
    assert len(set(clock.pauses)) == len(clock.pauses), "and not in step with others"


@pytest.mark.parametrize("code", ["NoSuchBucket", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"])
@pytest.mark.parametrize("call", ["get", "list", "put_if_absent"])
def test_what_no_waiting_mends_is_refused_at_the_first_call_with_its_mend(
    server: Server, call: str, code: str, clock: Clock
) -> None:
    server.faults = [(403, ERROR.format(code))] * 100
    with pytest.raises(InputError, match=code) as caught:
        CALLS[call](open_store("s3://runs/x"))
    assert caught.value.exit_code == 2
    assert s3.MENDS[code] in str(caught.value)
    assert "\n" not in str(caught.value)
    assert clock.now == 0
    server.faults = []


def test_nobody_at_the_address_is_refused_in_seconds(
    monkeypatch: pytest.MonkeyPatch, server: Server, clock: Clock
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(InputError, match="AWS_ENDPOINT_URL"):
        open_store("s3://runs/x").get("k")
    assert clock.now < 30


def test_an_endpoint_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "no address")
    with pytest.raises(InputError, match="AWS_ENDPOINT_URL"):
        open_store("s3://runs/x")


def test_missing_credentials_are_refused_with_their_names(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)  # it remembers credentials
    with pytest.raises(InputError, match="AWS_ACCESS_KEY_ID"):
        open_store("s3://runs/x").get("k")


def test_a_store_goes_to_workers_with_its_patience(server: Server, store: ObjectStore, clock: Clock) -> None:
    patient = pickle.loads(pickle.dumps(open_store("s3://runs/x", 60.0)))
    assert patient == store
    server.faults = [(404, ERROR.format("NoSuchBucket"))] * 10_000
    with pytest.raises(ResumableError):
        patient.get("k")
    assert 40 < clock.now <= 60
    server.faults = ["reset"] * 100
    clock.now = 0
    with pytest.raises(ResumableError):
        store.patient(5).get("k")
    assert clock.now <= 5
    server.faults = []


def test_an_age_is_told_by_the_servers_clock_whatever_this_machines_says(server: Server) -> None:
    written = "<LastModified>2020-02-02T12:00:00.000Z</LastModified>"
    server.listing = LISTING.replace("<Size>", f"{written}<Size>")
    server.date = "Mon, 03 Feb 2020 12:00:30 GMT"
    assert list(open_store("s3://runs/x").ages("")) == [("k", 4, 86_430.0)]
