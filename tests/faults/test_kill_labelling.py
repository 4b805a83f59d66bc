"""Whatever dies while a pool is labelled: the same labels, each image once."""

import hashlib
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.tiny_run import Finished, faulty, ray_ns
from support.two_nodes import two_nodes

pytestmark = pytest.mark.ray

LABEL = "rounds/1/label"


def labels(run: Path) -> pa.Table:
    """All rows of a run's labels by id."""
    tables = [pq.read_table(path) for path in sorted((run / LABEL / "data").rglob("*.parquet"))]
    rows = pa.concat_tables(tables, promote_options="default")  # a file without quarantine requires its columns
    return rows.replace_schema_metadata(None).sort_by("image_id").combine_chunks()


class Pool:
    """A run whose teacher is trained, to be copied and labelled again and again."""

    def __init__(self, finished: Finished, folder: Path) -> None:
        self.config, self.folder, self.finished = finished.config, folder, finished.run
        self.commit = (finished.run / LABEL / "commit.json").read_bytes()

    def fresh(self, name: str) -> Path:
        """The run, trained and unlabelled."""
        run = self.folder / name
        later = shutil.ignore_patterns("1", "report", "report.json")  # round 1 and the report, in the register too
        shutil.copytree(self.finished, run, ignore=later)
        assert not (run / LABEL).exists()
        return run

    def label(
        self, run: Path, fault: str | None = None, *words: str, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        env = {**faulty(fault), **(env or {})}
        return ray_ns("run", str(self.config), f"run.dir={run}", "--until", "label", *words, env=env, check=False)

    def assert_as_uninterrupted(self, run: Path) -> None:
        ids = labels(run)["image_id"].to_numpy()
        assert np.array_equal(ids, np.concatenate([(np.int64(shard) << 32) + np.arange(200) for shard in range(3)]))
        assert (run / LABEL / "commit.json").read_bytes() == self.commit


@pytest.fixture(scope="module")
def pool(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Pool:
    return Pool(finished, tmp_path_factory.mktemp("pool"))


TASKS = ("label.layout=tasks", "label.gpus_per_actor=1", "cluster.gpus=1", "cluster.cpus=3")


@pytest.mark.parametrize(
    ("victim", "shard", "words"),
    [
        ("teacher actor", "pool/1.parquet", ()),
        ("decode worker", "pool/2.parquet", TASKS),
        pytest.param("teacher actor", "pool/0.parquet", (), marks=pytest.mark.chaos),
        pytest.param("teacher actor", "pool/2.parquet", (), marks=pytest.mark.chaos),
        pytest.param("decode worker", "pool/0.parquet", TASKS, marks=pytest.mark.chaos),
        pytest.param("decode worker", "pool/1.parquet", TASKS, marks=pytest.mark.chaos),
    ],
)
def test_a_killed_worker_costs_a_retry_and_nothing_else(
    pool: Pool, tmp_path: Path, victim: str, shard: str, words: tuple[str, ...]
) -> None:
    run = pool.fresh(f"{victim} {shard[5]}".replace(" ", "-"))
    done = pool.label(run, f"read:{shard}:{tmp_path / 'killed'}", *words)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "killed").exists(), "nothing was killed"
    pool.assert_as_uninterrupted(run)


@pytest.mark.parametrize("words", [(), pytest.param(TASKS, marks=pytest.mark.chaos)], ids=["actor", "tasks"])
def test_an_image_that_kills_or_hangs_its_decoder_costs_itself_and_nothing_else(
    pool: Pool, words: tuple[str, ...]
) -> None:
    encoded = [pq.read_table(pool.config.parent / "data/pool" / f"{shard}.parquet")["image"] for shard in range(3)]
    crashes, hangs = (hashlib.sha256(encoded[shard][row].as_py()).hexdigest() for shard, row in ((0, 70), (2, 199)))
    run = pool.fresh(f"decoder-{len(words)}")
    done = pool.label(run, f"decode:{crashes}:{hangs}", "label.image_seconds=2", "data.max_quarantined=0.1", *words)
    assert done.returncode == 0, done.stderr[-2000:]
    reasons = {70: "crashes_decoder", 207: "empty", 209: "truncated", 599: "too_slow"}
    found, expected = labels(run), labels(pool.finished)
    assert {row: found["quarantine"][row].as_py() for row in reasons} == reasons
    others = np.setdiff1d(np.arange(600), list(reasons))
    assert found["image_id"].equals(expected["image_id"])
    assert found.take(others).equals(expected.take(others))


@pytest.mark.chaos
@pytest.mark.parametrize("shard", [0, 1, 2])
@pytest.mark.parametrize("point", ["before:{}/data/", "after:{}/data/", "after:{}/done/"])
def test_a_killed_driver_at_every_commit_point(pool: Pool, shard: int, point: str) -> None:
    run = pool.fresh(f"driver-{point.replace(':{}/', '-')[:-1]}-{shard}")
    fault = f"{point.format(LABEL)}:{shard + 1}"
    assert pool.label(run, fault).returncode == -signal.SIGKILL
    done_before = {path.name: path.stat().st_mtime_ns for path in (run / LABEL / "done").glob("*.json")}
    assert pool.label(run).returncode == 0
    for name, stamp in done_before.items():
        assert (run / LABEL / "done" / name).stat().st_mtime_ns == stamp, "a finished shard was done again"
    pool.assert_as_uninterrupted(run)


@pytest.mark.chaos
def test_a_crash_loop_that_kills_after_every_shard_still_comes_to_an_end(pool: Pool) -> None:
    run = pool.fresh("crash-loop")
    for shard in range(3):
        assert pool.label(run, f"after:{LABEL}/done/:1").returncode == -signal.SIGKILL
        assert len(list((run / LABEL / "done").glob("*.json"))) == shard + 1
    assert pool.label(run).returncode == 0
    pool.assert_as_uninterrupted(run)


@pytest.mark.chaos
def test_a_node_that_dies_costs_a_retry_and_nothing_else(pool: Pool, tmp_path: Path) -> None:
    run = pool.fresh("node")
    marker = tmp_path / "read"  # the reader of the middle shard dies of the fault, and its whole node after it
    with two_nodes(marker, faulty(f"read:pool/1.parquet:{marker}")) as env:
        done = pool.label(run, None, "label.actors=2", env=env)
        assert done.returncode == 0, done.stderr[-3000:]
    pool.assert_as_uninterrupted(run)
