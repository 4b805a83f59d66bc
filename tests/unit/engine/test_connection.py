"""A cluster that a run joins answers, and is closed to whoever has no token; before that nothing is written."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.tiny_run import write_tiny

from ray_ns.engine import connection, ray_private
from ray_ns.engine.ingest.opening import ingest
from ray_ns.engine.ingest.settings import Ingest
from ray_ns.engine.opening import drive
from ray_ns.errors import InputError


@pytest.mark.parametrize(
    ("address", "host", "port", "loopback"),
    [
        ("127.0.0.1:6379", "127.0.0.1", 6379, True),
        ("127.9.9.9:1", "127.9.9.9", 1, True),
        ("[::1]:6379", "::1", 6379, True),
        ("[::1]", "::1", 6379, True),
        ("localhost:6379", "localhost", 6379, True),
        ("ray://localhost:10001", "localhost", 10001, True),
        ("ray://head", "head", 10001, False),
        ("head.example", "head.example", 6379, False),
        ("127.evil.example.com:6379", "127.evil.example.com", 6379, False),
        ("127.0.0.1.evil.example:6379", "127.0.0.1.evil.example", 6379, False),
        ("localhost.evil.example:6379", "localhost.evil.example", 6379, False),
        ("10.0.0.5:6379", "10.0.0.5", 6379, False),
        ("[fe80::1]:6379", "fe80::1", 6379, False),
        ("0.0.0.0:6379", "0.0.0.0", 6379, False),
    ],
)
def test_a_host_is_loopback_by_its_number(address: str, host: str, port: int, loopback: bool) -> None:
    assert connection.parted(address) == (host, port)
    assert connection.is_loopback(host) == loopback


@pytest.mark.parametrize(
    "address",
    ["", ":6379", "head:", "head:port", "head:70000", "http://head:8265", "a b:1", "me@127.0.0.1:6379", "[]:1"],
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(InputError, match="expected host:port"):
        connection.parted(address)


@pytest.fixture
def listening(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of something on loopback that is taken for another machine."""
    monkeypatch.setattr(connection, "is_loopback", lambda host: False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    ("said", "mode", "words"),
    [
        (
            "open 10.0.0.5",
            "token",
            "(its nodes: 10.0.0.5) answers without a token: whoever reaches",
        ),  # the client's own variable proves nothing
        ("open", None, "answers without a token"),
        ("refused", None, "asks for a token. Set RAY_AUTH_MODE=token"),
        ("refused", "disabled", "asks for a token"),
        ("refused", "token", None),
        ("no answer in 20 s", "token", "cannot be asked whether it refuses who has no token (no answer in 20 s)"),
    ],
)
def test_the_cluster_is_asked_and_not_the_clients_own_settings(
    monkeypatch: pytest.MonkeyPatch, listening: str, said: str, mode: str | None, words: str | None
) -> None:
    monkeypatch.setattr(connection, "ask", lambda address: (said, "open 10.0.0.5"))
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    if mode:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    if words is None:
        connection.check(listening)
        return
    with pytest.raises(InputError) as caught:
        connection.check(listening)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("mine", "words"),
    [
        ("refused Invalid token", r"refuses this process's token \(Invalid token\)\. Set RAY_AUTH_TOKEN_PATH or"),
        ("RpcError gone", r"cannot be asked for its nodes \(RpcError gone\)"),
    ],
)
def test_the_token_of_this_process_is_tried_too(
    monkeypatch: pytest.MonkeyPatch, listening: str, mine: str, words: str
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setattr(connection, "ask", lambda address: ("refused", mine))
    with pytest.raises(InputError, match=words):
        connection.check(listening)


def test_an_address_that_swallows_what_is_sent_to_it_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server, contextlib.ExitStack() as waiting:
        for _ in range(4):  # beyond its queue the kernel drops them, as a firewall would
            one = waiting.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(server.getsockname())
        began = time.monotonic()
        with pytest.raises(InputError, match=r"nobody answers there \((timed out|no answer in 0 s)\)"):
            connection.check(f"127.0.0.1:{server.getsockname()[1]}")
        assert time.monotonic() - began < 5


def test_what_listens_and_is_no_cluster_is_refused(monkeypatch: pytest.MonkeyPatch, listening: str) -> None:
    monkeypatch.setattr(connection, "ASK_SECONDS", 2.0)
    with pytest.raises(InputError, match="cannot be asked"):
        connection.check(listening)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_an_address_that_nobody_answers_at_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny, address = write_tiny(tmp_path), f"127.0.0.1:{free_port()}"
    run = [f"run.dir={tmp_path / 'run'}"]
    with (
        pytest.raises(InputError, match=rf"{address}: nobody answers there \(Connection refused\)"),
        drive(str(tiny), [*run, f"cluster.address={address}"], "plain"),
    ):
        pass
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(InputError, match="nobody answers there"), drive(str(tiny), run, "plain"):
        pass
    with pytest.raises(InputError, match="nobody answers there"):
        ingest(Ingest(str(tmp_path / "data/pool"), str(tmp_path / "packed")), False, "plain")
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "packed").exists()


def test_auto_without_a_cluster_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_here() -> str:
        raise ConnectionError("Could not find any running Ray instance")  # as Ray says it

    monkeypatch.setattr(ray_private, "running_cluster", none_here)
    with pytest.raises(InputError, match=r"cluster\.address = auto: no Ray cluster runs on this machine"):
        connection.address_of("auto")


CLUSTER = """
import os, sys, ray
ray.init(address="local", num_cpus=1, object_store_memory=100 << 20, include_dashboard=False, log_to_driver=False)
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize(
    ("said", "mine", "allowed"),
    [
        ("open 127.0.0.1", "open 127.0.0.1", True),
        ("open 127.0.0.1 10.0.0.5", "open 127.0.0.1 10.0.0.5", False),
        ("refused no token", "open 127.0.0.1", True),
        ("OSError no Ray here", "open 127.0.0.1", True),
    ],
)
def test_an_open_cluster_behind_loopback_keeps_to_it(
    monkeypatch: pytest.MonkeyPatch, said: str, mine: str, allowed: bool
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setattr(connection, "ask", lambda address: (said, mine))
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        if allowed:
            assert connection.check(address) == connection.Cluster(address, loopback=True)
        else:
            with pytest.raises(InputError, match=r"\(its nodes: 127\.0\.0\.1, 10\.0\.0\.5\) answers without a token"):
                connection.check(address)


@pytest.mark.ray
@pytest.mark.parametrize(("mode", "said"), [("disabled", "open 127.0.0.1"), ("token", "refused")])
def test_a_real_cluster_says_whether_it_is_open(monkeypatch: pytest.MonkeyPatch, mode: str, said: str) -> None:
    settings = {
        "RAY_AUTH_MODE": mode,
        "RAY_AUTH_TOKEN": "0123456789abcdef" * 4,
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_API_SERVER_ADDRESS": "http://127.0.0.1:9",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    cluster = subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        env={**os.environ, **settings},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert cluster.stdout is not None
        address = cluster.stdout.readline().strip()
        monkeypatch.setenv("RAY_AUTH_MODE", "token")  # of this process, which says nothing of the cluster's
        monkeypatch.setenv("RAY_AUTH_TOKEN", "0123456789abcdef" * 4)
        bare, mine = connection.ask(address)
        assert bare.startswith(said), bare
        assert mine == "open 127.0.0.1"
        monkeypatch.setenv("RAY_AUTH_TOKEN", "f" * 64)
        if mode == "token":
            with pytest.raises(InputError, match="refuses this process's token"):
                connection.check(address)
    finally:
        cluster.communicate("\n", timeout=60)
