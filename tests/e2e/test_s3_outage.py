"""The S3 server is killed and comes back 45 s later: the command ends by itself with the same commits."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.tiny_run import digests, ray_ns, write_tiny
from support.weed import Weed, weed

from ray_ns.store.objects import ObjectStore, open_store

pytestmark = [pytest.mark.ray, pytest.mark.chaos]
SECONDS = 45


class Run:
    """The commits of an uninterrupted run and ingest on a disk."""

    def __init__(self, folder: Path) -> None:
        self.config = write_tiny(folder)
        self.folder = folder
        ray_ns("run", str(self.config), f"run.dir={folder / 'whole'}", "--until", "train")
        ray_ns("ingest", str(folder / "data/pool"), str(folder / "packed"), "--shard-rows", "50")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Weed]:
    with weed(tmp_path, "runs") as env:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        yield env


def through_an_outage(server: Weed, store: ObjectStore, place: str, words: tuple[str, ...]) -> None:
    """The command to its end, the server away for a while once a key below ``place`` exists."""
    command = [str(Path(sys.executable).with_name("ray-ns")), *words]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    told: list[str] = []
    assert running.stderr is not None
    reader = threading.Thread(target=lambda: told.append(running.stderr.read()))  # type: ignore[union-attr]
    reader.start()
    deadline = time.monotonic() + 120
    while not any(store.list(place)):
        assert running.poll() is None, told
        assert time.monotonic() < deadline, place
        time.sleep(0.05)
    server.kill()
    time.sleep(SECONDS)
    assert running.poll() is None, "it waits for the store"
    server.start()
    try:
        assert running.wait(200) == 0, told
    finally:
        running.kill()
        reader.join()


@pytest.mark.parametrize("place", ["rounds/0/train/checkpoints/", "rounds/1/label/done/"])
def test_a_run_outlasts_the_server(whole: Run, server: Weed, place: str) -> None:
    store = open_store("s3://runs/tiny")
    # Small parts and early checkpoints change no commit but leave more to do when the server goes.
    words = ("run", str(whole.config), "run.dir=s3://runs/tiny", "--until", "train")
    through_an_outage(server, store, place, words)
    for key, data in digests(whole.folder / "whole").items():
        assert store.get(f"{key}/commit.json") == data, key


def test_an_ingest_outlasts_the_server(whole: Run, server: Weed) -> None:
    store = open_store("s3://runs/packed")
    words = ("ingest", str(whole.folder / "data/pool"), "s3://runs/packed", "--shard-rows", "50")
    through_an_outage(server, store, "hashes-0001/done/", words)
    for key, data in digests(whole.folder / "packed").items():
        assert store.get(f"{key}/commit.json") == data, key
