"""A whole run in S3: the same bytes as on a disk."""

from pathlib import Path

import pytest
from support.tiny_run import ray_ns
from support.weed import weed

from ray_ns.store.objects import open_store

pytestmark = pytest.mark.ray


def test_a_run_in_s3_commits_what_a_run_on_disk_does(finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with weed(tmp_path, "runs") as env:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        run = "s3://runs/tiny"
        ray_ns("run", str(finished.config), f"run.dir={run}")
        store = open_store(run)
        for commit in finished.run.rglob("commit.json"):
            key = commit.relative_to(finished.run).as_posix()
            assert store.get(key) == commit.read_bytes(), key
        assert "finished" in ray_ns("status", run).stdout
        assert ray_ns("verify", run).returncode == 0
        for name, value in env.items():
            assert not any(value.encode() in (store.get(key) or b"") for key in store.list("")), name
