"""Filter and balance N synthetic labels: ours against DuckDB and Polars, same files, same run, results compared.

Classes follow a Zipf law of exponent 0.8, confidences Beta(0.7, 0.6); labels lie in shards of 100,000 rows as the label
stage writes them, beside the counts by class and confidence that it makes on its way. Each contender is a process of
its own, timed from its start to its end, so ours pays for Ray's start; memory, in another run, is the proportional set
size of all its processes. DuckDB and Polars have as many threads as ours has CPUs, and they select the same images
(without copies of scarce classes). ``ours_shards_per_s`` is the pass alone, from the first task's end to the last's:
what soft labels cost is seen there. The last line is a JSON object.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from ray_ns.engine.run import Run
    from ray_ns.observe import Reporter

SHARD_ROWS = 100_000
LABELS, SELECTION = "rounds/1/label", "rounds/1/select"
THRESHOLD = 0.3
SAMPLE_SECONDS = 0.25


def labels_of(shard: int, rows: int, classes: int, soft: bool, sure: float) -> pa.Table:
    """The label table of one synthetic shard."""
    rng = np.random.default_rng((0, shard))
    share = np.cumsum(np.arange(1, classes + 1) ** -0.8)
    label = np.searchsorted(share / share[-1], rng.random(rows)).astype(np.int16)
    confidence = rng.beta(0.7, 0.6, rows).astype(np.float32)
    confidence[rng.random(rows) < sure] = 1
    columns = {
        "image_id": pa.array((np.int64(shard) << 32) + np.arange(rows)),
        "label": pa.array(label),
        "confidence": pa.array(confidence),
        "quarantine": pa.nulls(rows, pa.string()),
    }
    if soft:
        others = np.sort(rng.random((rows, 9), np.float32), 1)[:, ::-1] * ((1 - confidence) / 9)[:, None]
        top = np.concatenate([label[:, None], rng.integers(0, classes, (rows, 9))], 1).astype(np.int16)
        probability = np.concatenate([confidence[:, None], others], 1).astype(np.float16)
        columns["top_label"] = pa.FixedSizeListArray.from_arrays(pa.array(top.reshape(-1)), 10)
        columns["top_probability"] = pa.FixedSizeListArray.from_arrays(pa.array(probability.reshape(-1)), 10)
    return pa.table(columns)


def publish(job: tuple[str, int, int, int, bool, float]) -> tuple[Any, np.ndarray]:
    """Write one shard as the label stage does: the part, and its labels by class and confidence bin."""
    from ray_ns.artifacts.labels import label_objects
    from ray_ns.labels import counting
    from ray_ns.labels.files import About
    from ray_ns.store.commit import Output
    from ray_ns.store.objects import open_store

    folder, shard, rows, classes, soft, sure = job
    table = labels_of(shard, rows, classes, soft, sure)
    counted = counting.tally(classes)
    counting.add(counted, table, str(shard))
    objects, checksum = label_objects(table, {"teacher": "synthetic"}, About(None, ("pool", "synthetic")))
    facts = {"shards": [[f"{shard}.parquet", 0, 1]], "rows": rows, "quarantine": {}}
    stage = Output(open_store(folder), LABELS, lambda: None)
    return stage.put(shard, objects, facts | checksum), counted.counts()


def generate(folder: Path, rows: int, classes: int, soft: bool, sure: float) -> None:
    """Commit the synthetic labels, where they are not there yet."""
    from ray_ns.artifacts.labels import Labels
    from ray_ns.engine.stages.counts import Counts
    from ray_ns.observe import Reporter
    from ray_ns.store.commit import Output, find_commit
    from ray_ns.store.objects import open_store

    store = open_store(str(folder))
    if find_commit(store, LABELS) is not None:
        return
    sizes = [min(SHARD_ROWS, rows - at) for at in range(0, rows, SHARD_ROWS)]
    jobs = [(str(folder), shard, size, classes, soft, sure) for shard, size in enumerate(sizes)]
    with multiprocessing.get_context("spawn").Pool(len(os.sched_getaffinity(0))) as pool:
        parts, counted = [], np.zeros(1, np.int64)
        for part, of_part in pool.imap(publish, jobs):
            parts.append(part)
            counted = counted + of_part
    summary = {"rows": rows, "per_class": counted.sum(1).tolist(), "quarantine": {}}
    labels = Output(store, LABELS, lambda: None).commit({"synthetic": [rows, classes, soft, sure]}, summary, parts)
    counts, run = (
        Counts(Labels(labels), classes, lambda: counted),
        run_of(str(folder), classes, 1, 1, Reporter("plain")),
    )
    beside = Output(store, counts.place, lambda: None)
    counts.work(run, beside)
    beside.commit(counts.inputs(run), {}, 1)


def run_of(folder: str, classes: int, k: int, cpus: int, reporter: "Reporter") -> "Run":
    """A run in ``folder`` that selects; it has no images."""
    from ray_ns.config import Config
    from ray_ns.engine.run import Run
    from ray_ns.store.lease import Lease
    from ray_ns.store.objects import open_store

    recipe = {"model": {"name": "resnet10t"}, "steps": 1, "batch": 1}
    places = dict.fromkeys(("labelled", "validation", "test", "pool"), "unused")
    config = Config.model_validate(
        {
            "run": {"dir": folder},
            "data": {"classes": classes, **places},
            "teacher": recipe,
            "student": recipe,
            "select": {"threshold": THRESHOLD, "per_class": k},
            "cluster": {"cpus": cpus},
        }
    )
    store = open_store(folder)
    return Run(config, store, {}, (0,), Lease(store), reporter)


def run_ours(folder: str, classes: int, k: int, cpus: int) -> None:
    """The select stage, on the labels that lie in ``folder``."""
    from ray_ns.artifacts.labels import Labels
    from ray_ns.engine.stages.select import Select
    from ray_ns.observe import Reporter
    from ray_ns.store.commit import find_commit

    seen: list[tuple[float, int]] = []

    class Watched(Reporter):
        def progress(self, done: int, note: str = "", **figures: float) -> None:
            seen.append((time.monotonic(), done))
            super().progress(done, note, **figures)

    with run_of(folder, classes, k, cpus, Watched("plain")) as run:
        labels = find_commit(run.store, LABELS)
        assert labels is not None
        run.ensure(SELECTION, Select(Labels(labels)))
    (begin, first), (end, last) = seen[0], seen[-1]
    print(json.dumps({"ours_shards_per_s": round((last - first) / (end - begin), 1) if end > begin else None}))


def run_duckdb(folder: str, classes: int, k: int, cpus: int) -> None:
    """The same images by a window function."""
    import duckdb

    base = duckdb.connect()
    base.execute(f"SET threads={cpus}; SET temp_directory='{folder}/duckdb-spill'; SET preserve_insertion_order=false")
    base.execute(
        f"COPY (SELECT image_id, label, confidence FROM (SELECT image_id, label, confidence, row_number() OVER "
        f"(PARTITION BY label ORDER BY confidence DESC, image_id) AS place "
        f"FROM read_parquet('{folder}/{LABELS}/data/*/*.parquet') WHERE confidence >= CAST({THRESHOLD} AS FLOAT)) "
        f"WHERE place <= {k}) TO '{folder}/duckdb.parquet' (FORMAT parquet)"
    )


def run_polars(folder: str, classes: int, k: int, cpus: int) -> None:
    """The same images by a sort and the head of every group."""
    os.environ["POLARS_MAX_THREADS"] = str(cpus)
    import polars as pl

    (
        pl.scan_parquet(f"{folder}/{LABELS}/data/*/*.parquet")
        .select("image_id", "label", "confidence")
        .filter(pl.col("confidence") >= pl.lit(THRESHOLD, pl.Float32))
        .sort(["label", "confidence", "image_id"], descending=[False, True, False])
        .group_by("label")
        .head(k)
        .sink_parquet(f"{folder}/polars.parquet")
    )


CONTENDERS = {"ours": run_ours, "duckdb": run_duckdb, "polars": run_polars}


def measured(contender: str, args: argparse.Namespace) -> dict[str, Any]:
    """Seconds of one contender in a process of its own, and the peak memory, MB, of another such process.

    Not of the same: to add up gigabytes of memory four times a second takes a fifth of the time from DuckDB. The timed
    one comes second, so that it finds the files in the page cache, as do all contenders.
    """
    words = [contender, "--data", args.data, "--classes", args.classes, "--per-class", args.per_class]
    command = [sys.executable, "-m", "benchmarks.selection", "--contender", *map(str, words), "--cpus", str(args.cpus)]
    # Ray gives its workers a low priority; on a shared machine that would compare priorities.
    environment = {**os.environ, "RAY_worker_niceness": "0"}
    peak = 0.0
    for watched in (True, False):
        shutil.rmtree(Path(args.data) / SELECTION, ignore_errors=True)
        began = time.monotonic()
        child = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
        while watched and child.poll() is None:
            peak = max(peak, sum(map(proportional_mb, family(child.pid))))
            time.sleep(SAMPLE_SECONDS)
        said = child.communicate()[0]
        if child.returncode:
            raise SystemExit(f"{contender} failed with exit code {child.returncode}")
        seconds = time.monotonic() - began
    return {f"{contender}_s": round(seconds, 2), f"{contender}_peak_mb": round(peak)} | json.loads(said or "{}")


def family(root: int) -> list[int]:
    """``root`` and every process below it."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def proportional_mb(pid: int) -> float:
    """Memory of a process, what it shares divided among the sharers."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def chosen_images(files: list[Path], rows: int) -> np.ndarray:
    """Which of the ``rows`` images the files name, bool (rows,). Raises where one comes twice."""
    used = np.zeros(rows, bool)
    count = 0
    for path in files:
        for batch in pq.ParquetFile(path).iter_batches(2**20, columns=["image_id"]):
            ids = batch["image_id"].to_numpy()
            used[(ids >> 32) * SHARD_ROWS + (ids & 0xFFFFFFFF)] = True
            count += len(ids)
    if count != np.count_nonzero(used):
        raise SystemExit(f"{files[0]}: {count} rows name {np.count_nonzero(used)} images")
    return used


def main() -> None:
    """Generate, run all three, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=30_000_000)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--per-class", type=int, default=0, help="K; 0: 130,000 for 300 M rows and in proportion")
    parser.add_argument("--soft", action="store_true", help="with soft labels (top 10), which ours carries along")
    parser.add_argument("--sure", type=float, default=0.0, help="share of labels of confidence exactly 1")
    parser.add_argument("--data", default="", help="folder for the labels, kept and used again; default: temporary")
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--only", nargs="+", default=list(CONTENDERS), choices=list(CONTENDERS))
    parser.add_argument("--contender", choices=list(CONTENDERS), help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="nothing but the JSON object on stdout")
    args = parser.parse_args()
    if args.contender:
        CONTENDERS[args.contender](args.data, args.classes, args.per_class, args.cpus)
        return
    args.per_class = args.per_class or max(1, round(130_000 * args.rows / 300_000_000))
    kept = bool(args.data)
    args.data = args.data or f"/tmp/ray_ns-bench-select-{os.getpid()}"
    folder = Path(args.data)
    try:
        print(json.dumps(compare(folder, args)))
    finally:
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)


def compare(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """All figures of one run."""
    generate(folder, args.rows, args.classes, args.soft, args.sure)
    result: dict[str, Any] = {
        name: getattr(args, name) for name in ("rows", "classes", "per_class", "soft", "sure", "cpus")
    }
    chosen = {}
    for contender in args.only:
        result |= measured(contender, args)
        if not args.json:
            print(contender, result[f"{contender}_s"], "s", result[f"{contender}_peak_mb"], "MB", file=sys.stderr)
        output = folder / f"{contender}.parquet"
        files = sorted((folder / SELECTION / "data").rglob("*.parquet")) if contender == "ours" else [output]
        chosen[contender] = chosen_images(files, args.rows)
        output.unlink(missing_ok=True)
    images = [int(np.count_nonzero(it)) for it in chosen.values()]
    result["selected"] = images[0]
    for other in set(args.only) - {"ours"}:
        if "ours" in args.only:
            result[f"ratio_{other}"] = round(result["ours_s"] / result[f"{other}_s"], 3)
    result["same_ids"] = all(np.array_equal(it, chosen[args.only[0]]) for it in chosen.values())
    return result


if __name__ == "__main__":
    main()
