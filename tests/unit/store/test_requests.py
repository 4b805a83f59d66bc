"""Requests to the run directory are counted and timed."""

from pathlib import Path

import pytest
from support.measured import measured

from ray_ns.errors import IntegrityError
from ray_ns.store.objects import LocalStore


def test_each_request_is_counted(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    with measured() as found:
        store.put("a/b", b"1")
        assert store.get("a/b") == b"1"
        assert store.get("a/c") is None  # an answer, not a failure
        assert list(store.list("a/")) == ["a/b"]
        store.delete("a/b")
    asked = [labels["verb"] for name, _, labels in found.values if name == "ns_store_requests"]
    assert asked == ["put", "get", "get", "list", "delete"]
    assert found.total("ns_store_requests", outcome="ok") == 5
    assert found.times("ns_store_seconds") == 5


def test_a_request_that_fails_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with measured() as found, pytest.raises(IntegrityError):
        LocalStore(tmp_path).get("a")
    assert found.total("ns_store_requests", verb="get", outcome="failed") == 1
    assert found.total("ns_store_requests", outcome="ok") == 0
