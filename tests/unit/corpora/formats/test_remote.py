"""A place that cannot be reached costs seconds and one line. Nothing beyond this machine is asked."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from ray_ns.corpora.corpus import Corpus
from ray_ns.corpora.formats import remote
from ray_ns.corpora.formats.place import Place
from ray_ns.errors import InputError

S3 = "s3://key:secret@bucket/x?scheme=http&region=us-east-1&endpoint_override={}"


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that accepts and never answers; its address."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(50)
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (S3.format("127.0.0.1:9"), ["s3://bucket/x", "cannot be reached", "endpoint_override", "AWS_ACCESS_KEY_ID"]),
        (S3.format("nowhere.invalid"), ["cannot be reached", "nowhere.invalid"]),
        ("http://127.0.0.1:9/data", ["web address", "Download it"]),
        ("foo://x/y", ["foo://x/y", "not a place", "s3://, gs:// or hf:// URL"]),
    ],
)
def test_what_cannot_be_reached_is_one_line_with_its_mend(url: str, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        Corpus.scan(url, "image", None)
    said = str(caught.value)
    assert "secret" not in said
    assert "\n" not in said
    for word in words:
        assert word in said


def raising(error: Exception) -> Callable[[], None]:
    def question() -> None:
        raise error

    return question


@pytest.mark.parametrize("scheme", ["s3", "gs", "hf", "abfs"])
def test_whatever_a_library_raises_is_a_line_of_ours(scheme: str) -> None:
    class Strange(Exception):
        pass

    with pytest.raises(InputError, match=rf"{scheme}://b/x: cannot be reached \(why\). Check"):
        remote.answered(f"{scheme}://b/x", raising(Strange("why\nat length")))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "answered", lambda url, question: raising(ImportError("No module named 'hub'"))())
    with pytest.raises(InputError, match=r"hf://a/b: needs a package .*'hub'.*Install it"):
        remote.filesystem("hf://a/b")


def test_no_answer_in_time_is_a_line_and_an_answer_is_given() -> None:
    assert remote.answered("s3://b/x", lambda: 7) == 7
    assert remote.answered("s3://b/x", lambda: None) is None
    with pytest.raises(InputError, match=r"gs://b/x: no answer within 0.1 s. Check .*GOOGLE_APPLICATION_CREDENTIALS"):
        remote.answered("gs://b/x", lambda: time.sleep(5), 0.1)


def inspecting(address: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "ray_ns", "inspect", S3.format(address)], stderr=subprocess.PIPE, text=True
    )


def test_a_silent_server_ends_the_command_within_half_a_minute(silent: str) -> None:
    process = inspecting(silent)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 2
    assert said.count("\n") == 1
    assert "no answer within 12 s" in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_silent_server_can_be_left(silent: str, number: signal.Signals) -> None:
    process = inspecting(silent)
    time.sleep(4)  # it has begun to ask
    process.send_signal(number)
    _, said = process.communicate(timeout=6)
    assert process.returncode == 3
    assert said.count("\n") == 1
    assert "stopped" in said


HELD = bytes(range(256)) * 4


@pytest.fixture
def faulty() -> Iterator[tuple[str, list[str]]]:
    """An S3 server that holds one object; how each of its next answers goes wrong."""
    faults: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            fault = faults.pop(0) if faults else ""
            self.close_connection = bool(fault)
            if fault == "reset":
                return
            begin, _, end = (self.headers.get("Range") or "bytes=0-1023").removeprefix("bytes=").partition("-")
            data = HELD[int(begin) : int(end) + 1]
            self.send_response(503 if fault == "503" else 206 if "Range" in self.headers else 200)
            self.send_header("Content-Length", "0" if fault == "503" else str(len(data)))
            self.send_header("Content-Range", f"bytes {begin}-{end}/{len(HELD)}")
            self.end_headers()
            if self.command == "GET" and fault != "503":
                self.wfile.write(data[:1] if fault == "cut" else data)

        do_HEAD = do_GET

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}", faults
        server.shutdown()


@pytest.mark.parametrize("fault", ["503", "reset", "cut"])
def test_reading_outlasts_what_pyarrows_three_tries_do_not(faulty: tuple[str, list[str]], fault: str) -> None:
    address, faults = faulty
    place = Place.of(S3.format(address))
    file = place.open("1.jpg")
    faults += [fault] * 3
    assert file.read_at(100, 500) == HELD[500:600]
    assert not faults
