"""How fast the pool is labelled on this machine, beside the limit and the other ways to do it.

Every contender labels the same 4,000 realistic JPEGs, over and over, in a process tree of its own; they take turns of a
few seconds, all the others being stopped meanwhile. ``--json`` prints one object per case and layout as the last
lines; docs/RESULTS.md explains the columns.
"""

import argparse
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
POOL = ROOT / "data" / "bench-label"
IMAGES, SHARD_ROWS, GROUP_ROWS, REPEATS = 4000, 2000, 256, 100
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "decode": ("test_vit", {"img_size": 224, "patch_size": 32, "depth": 1}),
    "resnet18": ("resnet18", {}),
    "efficientnet_b0": ("efficientnet_b0", {}),
}
ACTOR = {"label": {"layout": "actor", "actors": 2, "threads": 1}, "cluster": {"cpus": 3}}
LAYOUTS = ("actor", "tasks")
START_LIMIT = 300.0
TURN = 15.0
WARM = 10.0  # Ray starts processes it wants to have ready even after the first batches


def tasks_options(case: str) -> dict[str, Any]:
    """One fake-GPU actor; where the model is the work, one per core."""
    actors = 1 if case == "decode" else 2
    label = {"layout": "tasks", "actors": actors, "threads": 1, "gpus_per_actor": 1.0}
    return {"label": label, "cluster": {"cpus": 4 - actors, "gpus": actors}}  # of both, what serves the case better


@dataclass
class Run:
    """What one run of a contender gave."""

    img_s: float
    worker_cpu: float  # seconds per image in the processes that decode or forward
    other_cpu: float  # in all its other processes: driver, Ray's own
    startup_s: float
    peak_mb: float


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


class Contender:
    """One running contender: the tree of its processes, and its own clock, which stands while it is stopped."""

    def __init__(self, name: str, case: str, options: dict[str, Any]) -> None:
        """Start it, let it run until every worker has done two batches and ``WARM`` seconds more, then stop it."""
        model, args = MODELS[case]
        task = {"contender": name, "model": model, "model_args": args, "pool": str(POOL), "options": options}
        self._folder = tempfile.TemporaryDirectory()
        self._log = Path(self._folder.name) / "log"
        self._turns: list[tuple[float, float]] = []  # when it ran
        self._cpu: dict[int, list[tuple[float, float]]] = {}
        self._names: dict[int, str] = {}
        self._workers = 1 if name == "dataloader" else options.get("label", {}).get("actors", 2)
        self._peak_mb = 0.0
        began = time.monotonic()
        self._child = subprocess.Popen(
            [sys.executable, "-c", "from benchmarks import label_contenders; label_contenders.run()"],
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "RAY_NS_BENCH_TASK": json.dumps(task),
                "RAY_NS_BENCH_EVENTS": self._folder.name,
                "TMPDIR": self._folder.name,  # what one that was killed was decoding is decoded in isolation else
                "OMP_NUM_THREADS": str(options.get("threads", 1)),
                "RAY_worker_niceness": "0",  # else Ray's workers alone give way to whatever else the machine does
            },
            stdout=self._log.open("w"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        while not self.begun():
            time.sleep(0.5)
            if self._child.poll() is not None or time.monotonic() - began > START_LIMIT:
                text = self._log.read_text()
                self.end()
                raise RuntimeError(f"{name} did not start, {self._child.returncode}:\n{text}")
        self._startup_s = max(it[0, 0] for it in self._events().values()) - began
        time.sleep(WARM)
        self._signal(signal.SIGSTOP)
        self._sample()
        self._turns.append((began, time.monotonic()))

    def begun(self) -> bool:
        """Whether every worker has done two batches."""
        return len(self._events()) == self._workers

    def turn(self, seconds: float) -> float:
        """Let it run for so long, then stop it again. Returns how long it has run in its steady state."""
        begin = time.monotonic()
        self._signal(signal.SIGCONT)
        self._sample()
        while time.monotonic() - begin < seconds:
            time.sleep(0.5)
            self._sample()
        if self._child.poll() is not None:
            raise RuntimeError(
                f"ended early with {self._child.returncode}: {self._child.args!r}\n{self._log.read_text()}"
            )
        self._signal(signal.SIGSTOP)
        self._sample()
        self._turns.append((begin, time.monotonic()))
        if len(self._turns) % 4 == 2:
            self._peak_mb = max(self._peak_mb, sum(pss_mb(pid) for pid, _, _ in process_tree(self._child.pid)))
        begin, stop = self._steady(self._workers_done())
        return stop - begin

    def end(self) -> None:
        """Kill all of its processes and no other."""
        for number in (signal.SIGSTOP, signal.SIGKILL):  # stopped first, so that none starts another meanwhile
            self._signal(number)
        self._child.wait()
        self._last = self._workers_done()
        self._folder.cleanup()

    def result(self) -> Run:
        """What the lines and the samples say of the steady part, on the contender's own clock."""
        workers = self._last
        begin, stop = self._steady(workers)
        # Between two lines a worker is taken to go on evenly.
        images = sum(np.diff(np.interp([begin, stop], it[:, 0], it[:, 1].cumsum()))[0] for it in workers.values())
        used = {}
        for pid, points in self._cpu.items():
            at, seconds = np.array(points).T
            at = self._clock(at)
            if at[0] > begin:  # it came later, and began at nothing
                at, seconds = np.append(max(begin, at[0] - 0.5), at), np.append(0.0, seconds)
            used[pid] = float(np.diff(np.interp([begin, stop], at, seconds))[0])
        of_ray = "raylet" in self._names.values()
        of_workers = sum(it for pid, it in used.items() if not of_ray or is_worker(self._names[pid]))
        others = sum(used.values()) - of_workers
        return Run(images / (stop - begin), of_workers / images, others / images, self._startup_s, self._peak_mb)

    def _steady(self, workers: dict[int, np.ndarray]) -> tuple[float, float]:
        """From the end of its start, all workers at work, to the last batch of whichever has been silent longest."""
        return self._turns[0][1] - self._turns[0][0], min(it[-1, 0] for it in workers.values())

    def _signal(self, number: int) -> None:
        """Send a signal to the tree, and again to what was started meanwhile."""
        for _ in range(2):
            for pid, _, _ in list(process_tree(self._child.pid)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)

    def _sample(self) -> None:
        now = time.monotonic()
        for pid, seconds, name in process_tree(self._child.pid):
            self._cpu.setdefault(pid, []).append((now, seconds))
            self._names[pid] = name

    def _clock(self, at: np.ndarray) -> np.ndarray:
        """Moments of the machine's clock on the contender's own."""
        edges = np.array(self._turns).ravel()
        ran = np.array([[0.0, end - begin] for begin, end in self._turns]).ravel().cumsum()
        return np.interp(at, edges, ran)

    def _workers_done(self) -> dict[int, np.ndarray]:
        """The lines of each worker with its moments on the contender's own clock."""
        return {pid: np.column_stack([self._clock(it[:, 0]), it[:, 1]]) for pid, it in self._events().items()}

    def _events(self) -> dict[int, np.ndarray]:
        """The lines of each worker by pid, (n, 2): when, how many; of those that have written two at least."""
        found = {}
        for path in Path(self._folder.name).glob("*.txt"):
            lines = [line.split() for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
            if len(lines) > 1:
                found[int(path.stem)] = np.array(lines, float)
        return found


def compete(contenders: dict[str, tuple[str, dict[str, Any]]], case: str, seconds: float) -> dict[str, Run]:
    """Start all, then give each its turn of ``TURN`` seconds, round and round, until each has had ``seconds``.

    A turn is short enough to see the same machine as the next one's, whose rate wanders within minutes, and long enough
    that what Ray has to catch up with after a pause does not count.
    """
    running: dict[str, Contender] = {}
    try:
        for name, (kind, options) in contenders.items():
            running[name] = Contender(kind, case, options)
        had = dict.fromkeys(running, 0.0)
        while min(had.values()) < seconds:
            for name, one in running.items():
                had[name] = one.turn(TURN)
    finally:
        for one in running.values():
            one.end()
    found = {name: one.result() for name, one in running.items()}
    for name, it in found.items():
        print(
            f"{case:16} {name:11} {it.img_s:8.1f} img/s  {1000 * it.worker_cpu:6.2f} ms CPU/image in workers, "
            f"{1000 * it.other_cpu:5.2f} elsewhere  start {it.startup_s:5.1f} s  {it.peak_mb:6.0f} MB  "
            f"load {os.getloadavg()[0]:.1f} {contenders[name][1] if contenders[name][0] == 'dataloader' else ''}",
            file=sys.stderr,
            flush=True,
        )
    return found


def is_worker(name: str) -> bool:
    """Whether a process is one of Ray's workers by its name; its agents and daemons are not."""
    return name.startswith("ray::") and "Agent" not in name


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


def run_case(case: str, seconds: float) -> list[dict[str, Any]]:
    """Every contender of a case; the rows of the table, one per layout."""
    choices: dict[str, tuple[str, dict[str, Any]]] = {
        f"{workers}x{threads}": ("dataloader", {"workers": workers, "threads": threads, "batch": 16})
        for workers in (1, 2)
        for threads in (1, 2)
    }
    tried = compete(choices, case, min(8.0, seconds))
    best = max(tried, key=lambda name: tried[name].img_s)
    tasks = ("ours", tasks_options(case))
    limit: tuple[str, dict[str, Any]] = ("bare", {})
    runs = compete(
        {"bare": limit, "actor": ("ours", ACTOR), "tasks": tasks, "dataloader": choices[best]}, case, seconds
    )
    # The recipe takes so much memory that it runs beside the bare loop alone.
    recipe = compete({"bare": limit, "ray_recipe": ("ray_recipe", {})}, case, seconds)
    bare = runs["bare"]
    recipe_of_bare = recipe["ray_recipe"].img_s / recipe["bare"].img_s
    return [
        {
            "case": case,
            "layout": layout,
            "ours_img_s": round(ours.img_s, 1),
            "bare_img_s": round(bare.img_s, 1),
            "ratio_bare": round(ours.img_s / bare.img_s, 3),
            "ratio_ray_recipe": round(ours.img_s / bare.img_s / recipe_of_bare, 2),
            "ratio_dataloader": round(ours.img_s / runs["dataloader"].img_s, 3),
            "cpu_s_per_image": round(ours.worker_cpu, 6),
            "cpu_of_bare": round(ours.worker_cpu / bare.worker_cpu, 3),
            "startup_s": round(ours.startup_s, 1),
            "peak_mb": round(ours.peak_mb),
        }
        for layout, ours in ((layout, runs[layout]) for layout in LAYOUTS)
    ]


def run_cases(
    description: str | None, cases: Sequence[str], measure: Callable[[str, float], list[dict[str, Any]]]
) -> None:
    """Measure the cases that the command line asks for and print their rows, as a table and as JSON."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="one JSON object per row as the last lines")
    parser.add_argument("--seconds", type=float, default=60.0, help="of steady work per contender and case, at least")
    parser.add_argument("--cases", nargs="+", choices=cases, default=cases)
    words = parser.parse_args()
    write_pool()
    rows = [row for case in words.cases for row in measure(case, words.seconds)]
    print("| " + " | ".join(rows[0]) + " |")
    for row in rows:
        print("| " + " | ".join(str(value) for value in row.values()) + " |")
    if words.json:
        print("\n".join(json.dumps(row) for row in rows))


if __name__ == "__main__":
    run_cases(__doc__, list(MODELS), run_case)
