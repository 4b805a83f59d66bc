"""How fast the pool is labelled on this machine, beside the limit and the other ways to do it.

Every contender labels the same 4,000 realistic JPEGs, over and over, in a process tree of its own, one after the other
and in turns. ``--json`` prints one object per case and layout as the last lines; docs/RESULTS.md explains the columns.
"""

import argparse
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
POOL = ROOT / "data" / "bench-label"
IMAGES, SHARD_ROWS, GROUP_ROWS, REPEATS = 4000, 500, 256, 50
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "decode": ("test_vit", {"img_size": 224, "patch_size": 32, "depth": 1}),
    "resnet18": ("resnet18", {}),
    "efficientnet_b0": ("efficientnet_b0", {}),
}
ACTOR = {"label": {"layout": "actor", "actors": 2, "threads": 1}, "cluster": {"cpus": 3}}
LAYOUTS = ("actor", "tasks")
START_LIMIT = 180.0


def tasks_options(case: str) -> dict[str, Any]:
    """One fake-GPU actor; where the model is the work, it has both cores' threads."""
    threads = 1 if case == "decode" else 2
    label = {"layout": "tasks", "actors": 1, "threads": threads, "gpus_per_actor": 1.0}
    return {"label": label, "cluster": {"cpus": 2, "gpus": 1}}


@dataclass
class Run:
    """What one run of a contender gave."""

    img_s: float
    worker_cpu: float  # seconds per image in the processes that decode or forward
    other_cpu: float  # in all its other processes: driver, Ray's own
    startup_s: float
    peak_mb: float


@dataclass
class Samples:
    """The processes of one contender over time: seconds of CPU of each, and their memory together."""

    root: int
    cpu: dict[int, list[tuple[float, float]]] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    peak_mb: float = 0.0

    def take(self, memory: bool) -> None:
        """One look at the process tree."""
        tree = list(process_tree(self.root))
        now = time.monotonic()
        for pid, seconds, name in tree:
            self.cpu.setdefault(pid, []).append((now, seconds))
            self.names[pid] = name
        if memory:
            self.peak_mb = max(self.peak_mb, sum(pss_mb(pid) for pid, _, _ in tree))

    def used(self, begin: float, end: float) -> dict[int, float]:
        """CPU seconds of each process between two moments; a process that came later began at nothing."""
        used = {}
        for pid, points in self.cpu.items():
            at, seconds = np.array(points).T
            if at[0] > begin:
                at, seconds = np.append(max(begin, at[0] - 0.5), at), np.append(0.0, seconds)
            used[pid] = float(np.interp(end, at, seconds) - np.interp(begin, at, seconds))
        return used


def process_tree(root: int) -> Iterator[tuple[int, float, str]]:
    """(pid, user and system seconds, name) of a process and all below it, from /proc."""
    children: dict[int, list[int]] = {}
    facts = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                name, _, rest = Path(f"/proc/{entry}/stat").read_text().partition("(")[2].rpartition(")")
            except OSError:
                continue
            values = rest.split()
            children.setdefault(int(values[1]), []).append(int(entry))
            facts[int(entry)] = (int(values[11]) + int(values[12])) / os.sysconf("SC_CLK_TCK"), name
    below = [root]
    while below:
        pid = below.pop()
        if pid in facts:
            yield pid, *facts[pid]
        below += children.get(pid, [])


def pss_mb(pid: int) -> float:
    """Proportional set size in MB: shared pages count once over all who share them."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in text.splitlines() if line.startswith("Pss:")), 0.0)


def measure(contender: str, case: str, options: dict[str, Any], seconds: float) -> Run:
    """Run a contender until every one of its workers has worked for ``seconds``, then stop it."""
    model, args = MODELS[case]
    task = {"contender": contender, "model": model, "model_args": args, "pool": str(POOL), "options": options}
    with tempfile.TemporaryDirectory() as events, (Path(events) / "log").open("w") as log:
        began = time.monotonic()
        child = subprocess.Popen(
            [sys.executable, __file__, "--contender", json.dumps(task)],
            env={
                **os.environ,
                "RAY_NS_BENCH_EVENTS": events,
                "OMP_NUM_THREADS": str(options.get("threads", 1)),
                "RAY_worker_niceness": "0",  # else Ray's workers alone give way to whatever else the machine does
            },
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        samples = Samples(child.pid)
        try:
            for turn in range(1_000_000):
                time.sleep(0.5)
                samples.take(memory=turn % 8 == 0)
                workers = read_events(events)
                if workers and steady(workers)[1] - steady(workers)[0] >= seconds:
                    break
                if child.poll() is not None or (not workers and time.monotonic() - began > START_LIMIT):
                    raise RuntimeError(f"{contender} ended early:\n{(Path(events) / 'log').read_text()[-3000:]}")
        finally:
            end(samples)
            child.wait()
        return result(read_events(events), samples, began)


def result(workers: dict[int, np.ndarray], samples: Samples, began: float) -> Run:
    """What the lines and the samples say of the steady part of a run, in which nothing has run dry yet."""
    begin, stop = steady(workers)
    # Between two lines a worker is taken to go on evenly.
    images = sum(np.diff(np.interp([begin, stop], it[:, 0], it[:, 1].cumsum()))[0] for it in workers.values())
    used = samples.used(begin, stop)
    of_ray = any(name == "raylet" for name in samples.names.values())
    busy = {pid for pid, name in samples.names.items() if not of_ray or is_worker(name)}
    of_workers = sum(used[pid] for pid in busy)
    others = sum(used.values()) - of_workers
    return Run(images / (stop - begin), of_workers / images, others / images, begin - began, samples.peak_mb)


def steady(workers: dict[int, np.ndarray]) -> tuple[float, float]:
    """From when all workers have done their first batch to the last batch of whichever has been silent longest."""
    return max(it[0, 0] for it in workers.values()), min(it[-1, 0] for it in workers.values())


def is_worker(name: str) -> bool:
    """Whether a process is one of Ray's workers by its name; its agents and daemons are not."""
    return name.startswith("ray::") and "Agent" not in name


def read_events(folder: str) -> dict[int, np.ndarray]:
    """The lines of each worker by pid, (n, 2): when, how many; of those that have written two at least."""
    found = {}
    for path in Path(folder).glob("*.txt"):
        lines = [line.split() for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
        if len(lines) > 1:
            found[int(path.stem)] = np.array(lines, float)
    return found


def end(samples: Samples) -> None:
    """Stop the contender: kindly, as Ray gives its memory back, then whatever of it is left."""
    tree = [pid for pid, _, _ in process_tree(samples.root)]
    deadline = time.monotonic() + 15
    os.kill(samples.root, signal.SIGTERM) if tree else None
    while time.monotonic() < deadline and any(Path(f"/proc/{pid}/smaps_rollup").exists() for pid in tree[1:]):
        time.sleep(0.2)
    for pid in tree:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def write_pool() -> None:
    """The JPEGs, once: crops of two photographs at varying place, scale and quality; then the same shards again."""
    if (POOL / f"{IMAGES // SHARD_ROWS * REPEATS - 1:05d}.parquet").exists():
        return
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image
    from sklearn.datasets import load_sample_images

    POOL.mkdir(parents=True, exist_ok=True)
    photographs = [Image.fromarray(it) for it in load_sample_images().images]
    rng = np.random.default_rng(0)
    for shard in range(IMAGES // SHARD_ROWS):
        encoded: list[bytes] = []
        while len(encoded) < SHARD_ROWS:
            image = photographs[rng.integers(2)]
            width = int(rng.integers(280, image.height * 4 // 3))
            left, top = rng.integers(image.width - width), rng.integers(image.height - width * 3 // 4 + 1)
            box = (int(left), int(top), int(left) + width, int(top) + width * 3 // 4)
            sink = io.BytesIO()
            image.resize((500, 375), Image.Resampling.BICUBIC, box).save(
                sink, "JPEG", quality=int(rng.integers(80, 98))
            )
            if 40_000 <= sink.tell() <= 110_000:
                encoded.append(sink.getvalue())
        path = POOL / f"{shard:05d}.parquet"
        pq.write_table(pa.table({"image": encoded}), path, row_group_size=GROUP_ROWS, compression="none")
        for again in range(1, REPEATS):
            link = POOL / f"{again * (IMAGES // SHARD_ROWS) + shard:05d}.parquet"
            link.unlink(missing_ok=True)
            link.hardlink_to(path)


def best_dataloader(case: str, seconds: float) -> dict[str, Any]:
    """The DataLoader's own best settings on this machine, by short runs."""
    choices = [{"workers": workers, "threads": threads, "batch": 16} for workers in (1, 2) for threads in (1, 2)]
    return max(choices, key=lambda it: measure("dataloader", case, it, seconds).img_s)


def run_case(case: str, seconds: float, rounds: int, only: list[str]) -> list[dict[str, Any]]:
    """Every contender ``rounds`` times, in turns; the rows of the table, one per layout."""
    contenders: dict[str, tuple[str, dict[str, Any]]] = {
        "bare": ("bare", {}),
        "actor": ("ours", ACTOR),
        "tasks": ("ours", tasks_options(case)),
        "ray_recipe": ("ray_recipe", {}),
        "dataloader": ("dataloader", {}),
    }
    if not only or "dataloader" in only:
        contenders["dataloader"] = ("dataloader", best_dataloader(case, min(8.0, seconds)))
    runs: dict[str, list[Run]] = {name: [] for name in contenders if not only or name in only}
    for turn in range(rounds):
        for name in list(runs)[:: 1 if turn % 2 == 0 else -1]:
            kind, options = contenders[name]
            done = measure(kind, case, options, seconds / rounds)
            runs[name].append(done)
            print(
                f"{case:16} {name:11} {done.img_s:8.1f} img/s  {1000 * done.worker_cpu:6.2f} ms CPU/image in workers, "
                f"{1000 * done.other_cpu:5.2f} elsewhere  start {done.startup_s:5.1f} s  {done.peak_mb:6.0f} MB  "
                f"{options if kind == 'dataloader' else ''} load {os.getloadavg()[0]:.1f}",
                file=sys.stderr,
                flush=True,
            )
    rates = {name: mean(it.img_s for it in of_it) for name, of_it in runs.items()}

    def ratio(layout: str, name: str) -> float | None:
        return round(rates[layout] / rates[name], 3) if name in rates else None

    return [
        {
            "case": case,
            "layout": layout,
            "ours_img_s": round(rates[layout], 1),
            "bare_img_s": round(rates["bare"], 1) if "bare" in rates else None,
            "ratio_bare": ratio(layout, "bare"),
            "ratio_ray_recipe": ratio(layout, "ray_recipe"),
            "ratio_dataloader": ratio(layout, "dataloader"),
            "cpu_s_per_image": round(mean(it.worker_cpu for it in runs[layout]), 6),
            "bare_cpu_s_per_image": round(mean(it.worker_cpu for it in runs.get("bare", runs[layout])), 6),
            "startup_s": round(mean(it.startup_s for it in runs[layout]), 1),
            "peak_mb": round(max(it.peak_mb for it in runs[layout])),
        }
        for layout in LAYOUTS
        if layout in runs
    ]


def main() -> None:
    """Measure, then print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object per case and layout as the last lines")
    parser.add_argument("--seconds", type=float, default=60.0, help="of steady work per contender and case, at least")
    parser.add_argument("--rounds", type=int, default=2, help="turns in which these seconds are spent")
    parser.add_argument("--cases", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--only", nargs="+", default=[], help="contenders: bare actor tasks ray_recipe dataloader")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.contender:
        import label_contenders

        label_contenders.run(json.loads(words.contender))
        return
    write_pool()
    rows = [row for case in words.cases for row in run_case(case, words.seconds, words.rounds, words.only)]
    names = [name for name in rows[0] if name not in {"bare_cpu_s_per_image"}]
    print(" | ".join(names))
    for row in rows:
        print(" | ".join(str(row[name]) for name in names))
    if words.json:
        print("\n".join(json.dumps(row) for row in rows))


if __name__ == "__main__":
    main()
