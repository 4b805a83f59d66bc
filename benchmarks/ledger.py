"""The ledger of a pool of 300 M images: how long planning, resume, commit and status take, and in how much memory.

A synthetic label stage of 3,000 label shards of 100,000 rows (30,000 pool shards, 1,000 classes) whose records are real
and whose data objects are not there. On a local disk, and on a SeaweedFS server on loopback where one is installed.
"""

import argparse
import dataclasses
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ray_ns.corpora.corpus import Corpus
from ray_ns.engine import stages
from ray_ns.engine.stages.label import label_shards
from ray_ns.seals import canonical, seal
from ray_ns.store import layout
from ray_ns.store.commit import Output, find_commit
from ray_ns.store.objects import ObjectStore, open_store
from ray_ns.store.status import read_status

LABEL_SHARDS, POOL_SHARDS, CLASSES = 3_000, 30_000, 1_000
PREFIX = "rounds/1/label"


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of ``call``, and what it returned."""
    began = time.perf_counter()
    value = call()
    return time.perf_counter() - began, value


def pool_of(folder: Path) -> Corpus:
    """A pool of which the first shard exists, 10,000 rows, and the others are known by name and size."""
    pq.write_table(pa.table({"image": pa.array([b"x" * 64] * 10_000)}), folder / "00000.parquet")
    corpus = Corpus.scan(str(folder), "image", None)
    first = corpus.shards[0]
    shards = tuple(dataclasses.replace(first, ordinal=i, path=f"{i:05d}.parquet") for i in range(POOL_SHARDS))
    return dataclasses.replace(corpus, shards=shards)


def record(part: int, job: Any) -> dict[str, Any]:
    """What ``publish`` writes for one label shard."""
    key = f"{PREFIX}/data/{part:06d}-0123456789abcdef/labels.parquet"
    facts = {
        "shards": [[it.shard.path, it.part, it.parts] for it in job.pieces],
        "rows": 100_000,
        "per_class": [100] * CLASSES,
        "quarantine": {"truncated": 3},
    }
    stored = {"labels.parquet": {"key": key, "sha256": "0" * 64, "size": 5_000_000}}
    return {"part": part, "objects": stored, "facts": facts}


def measure(store: ObjectStore, pool: Corpus) -> dict[str, Any]:
    """Seconds of each step on one store."""
    planning, jobs = timed(lambda: label_shards(pool, 100_000))
    assert len(jobs) == LABEL_SHARDS
    shards = [vars(shard) for shard in pool.shards]
    layout.begin(store, {}, {"pool": shards}, lambda: None, layout.Classes(CLASSES))
    store.put_if_absent(f"{PREFIX}/plan.json", seal({"stage": PREFIX, "inputs": {}}))
    stage = Output(store, PREFIX, lambda: None)

    def write() -> None:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(16) as writers:
            list(
                writers.map(lambda it: store.put(f"{PREFIX}/done/{it[0]:06d}.json", seal(record(*it))), enumerate(jobs))
            )

    writing, _ = timed(write)
    resume, done = timed(stage.done)
    assert len(done) == LABEL_SHARDS
    midway, _ = timed(lambda: read_status(store.url, stages.names()))
    committing, _ = timed(lambda: stage.commit({}, {"rows": 300_000_000}, LABEL_SHARDS))
    reading, commit = timed(lambda: find_commit(store, PREFIX))
    finished, _ = timed(lambda: read_status(store.url, stages.names()))
    return {
        "planning_s": planning,
        "resume_s": resume,
        "status_s": max(midway, finished),
        "commit_s": committing,
        "read_commit_s": reading,
        "write_records_s": writing,
        "commit_mb": len(canonical(commit.summary)) / 1e6 + len(store.get(f"{PREFIX}/commit.json") or b"") / 1e6,
        "driver_peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object per store")
    as_json = parser.parse_args().json
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "pool").mkdir()
        pool = pool_of(folder / "pool")
        found = {"local disk": measure(open_store(str(folder / "run")), pool)}
        if Path(sys.executable).with_name("weed").exists():
            from tests.support.weed import weed

            (folder / "weed").mkdir()
            with weed(folder / "weed", "runs") as env:
                os.environ.update(env)
                found["S3 (SeaweedFS)"] = measure(open_store("s3://runs/ledger"), pool)
    for place, figures in found.items():
        rounded = {key: round(value, 2) for key, value in figures.items()}
        print(json.dumps({"store": place, **rounded}) if as_json else f"{place}: {rounded}")


if __name__ == "__main__":
    main()
