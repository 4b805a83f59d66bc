"""SIGKILL of an ingest at chosen moments, then the same command: the same shards, byte for byte."""

import hashlib
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.tiny_run import digests, faulty, ray_ns

from ray_ns.corpora.corpus import Corpus

pytestmark = pytest.mark.ray

# Where each kill falls; an ingest meets them in this order. Workers write the data, and are killed with the driver.
MOMENTS = {
    "the source written down, nothing done": "after:run.json:1",
    "first hashes stored, not done": "after:hashes-0001/data/:1",
    "all hashed, not committed": "before:hashes-0001/commit.json:1",
    "duplicates found, not done": "before:duplicates-0001/done/:1",
    "a shard stored, not done": "after:ingest-0001/data/.*images.parquet:1",
    "a shard done": "after:ingest-0001/done/:1",
    "all done, not committed": "before:ingest-0001/commit.json:1",
}
TWO = ("a shard stored, not done", "all done, not committed")


class Pool:
    """A source of five shards with copies in it, and any number of ingests of it."""

    def __init__(self, folder: Path, encode: Callable[..., bytes]) -> None:
        self._folder = folder
        rng = np.random.default_rng(0)
        images = [encode(rng.integers(0, 256, (24, 24, 3)).astype(np.uint8)) for _ in range(50)]
        images[31] = images[12]
        self._images = images
        for name, some in {"source": images, "test": images[40:42]}.items():
            (folder / name).mkdir()
            for at in range(0, len(some), 10):
                pq.write_table(pa.table({"image": some[at : at + 10]}), folder / name / f"{at:05d}.parquet")
        self.end = self.finish("uninterrupted")

    def finish(self, name: str) -> tuple[dict[str, bytes], list[str]]:
        """Ingest to the end: the commits, and the images in the order in which a reader meets them."""
        self._run(name)
        corpus = Corpus.scan(str(self._folder / name), "image", None)
        tables = [pq.read_table(self._folder / name / shard.path) for shard in corpus.shards]
        return digests(self._folder / name), pa.concat_tables(tables)["source"].to_pylist()

    def kill(self, name: str, fault: str) -> None:
        self._run(name, faulty(fault), -signal.SIGKILL)

    def break_decoder(self, name: str, row: int) -> str:
        """Ingest while this image kills whoever decodes it; what is said at the end."""
        image = self._images[row]
        fault = f"decode:{hashlib.sha256(image).hexdigest()}:none"
        return self._run(name, faulty(fault), 0, "--max-quarantined", "0.1")

    def _run(self, name: str, env: dict[str, str] | None = None, ends: int = 0, *more: str) -> str:
        words = ("--keep-out", str(self._folder / "test"), "--shard-rows", "10", *more)
        done = ray_ns("ingest", str(self._folder / "source"), str(self._folder / name), *words, env=env, check=False)
        assert done.returncode == ends, f"{env}\n{done.stderr[-2000:]}"
        return done.stdout


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory, encode: Callable[..., bytes]) -> Pool:
    return Pool(tmp_path_factory.mktemp("ingest"), encode)


def test_killed_twice_in_a_row_an_ingest_ends_as_if_it_never_was(pool: Pool) -> None:
    assert len(pool.end[1]) == 47
    for moment in TWO:
        pool.kill("chain", MOMENTS[moment])
    assert pool.finish("chain") == pool.end


@pytest.mark.chaos
@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_once_an_ingest_ends_as_if_it_never_was(pool: Pool, moment: str) -> None:
    name = "".join(letter if letter.isalnum() else "-" for letter in moment)
    pool.kill(name, MOMENTS[moment])
    assert pool.finish(name) == pool.end


@pytest.mark.chaos
def test_an_image_that_kills_its_decoder_is_one_of_the_unreadable(pool: Pool) -> None:
    said = pool.break_decoder("crash", 25)
    assert "1 unreadable: crashes_decoder 1" in said
    assert "46 of 50 images packed" in said
