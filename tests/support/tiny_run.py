"""A run small enough for a test: genuine digits, one label per class, two bad images in the pool, the real loop."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ray_ns.demo import write_digits

INJECT = Path(__file__).parents[1] / "faults/inject"

TINY = """
run: {{dir: {folder}/run, seed: 3, rounds: 1}}
data:
  classes: 10
  labelled: {folder}/data/labelled
  validation: {folder}/data/validation
  test: {folder}/data/test
  pool: {folder}/data/pool
  size: 28
  channels: 1
  mean: [0.13]
  std: [0.31]
teacher: &teacher
  model: &model
    name: resnet10t
    args: {{channels: [8, 16, 16, 16], stem_type: deep, stem_width: 4, output_stride: 16}}
  steps: 40
  batch: 20
  optimizer: &sgd {{name: sgd, lr: 0.1, warmup_steps: 5}}
  noise: &noise {{augment: affine, magnitude: 0.5, flip: false}}
student:
  model: {{<<: *model, dropout: 0.1, drop_path: 0.1}}
  steps: 30
  batch: 8
  ema_decay: 0.9
  optimizer: *sgd
  noise: *noise
select: {{threshold: 0.2}}
label: {{slice_rows: 64, shard_rows: 200}}
control: {{enabled: false}}
cluster: {{checkpoint_steps: 10, object_store_mb: 100}}
"""


def write_tiny(folder: Path) -> Path:
    """The data and the config of a tiny run below ``folder``; returns the config's path.

    The pool is 3 shards of 200 rows; row 7 of the second is empty, row 9 is a PNG cut in half.
    """
    write_digits(folder / "full", 3, per_class=1)
    for name, rows in {"labelled": 10, "validation": 100, "test": 100, "pool": 600}.items():
        table = pa.concat_tables([pq.read_table(path) for path in sorted((folder / "full" / name).iterdir())])
        table = table.slice(0, rows)
        if name == "pool":
            images = table["image"].to_pylist()
            images[207], images[209] = b"", images[209][: len(images[209]) // 2]
            table = pa.table({"image": pa.array(images, pa.binary())})
        (folder / "data" / name).mkdir(parents=True)
        for shard in range(0, table.num_rows, 200):
            path = folder / "data" / name / f"{shard // 200}.parquet"
            pq.write_table(table.slice(shard, 200), path, row_group_size=100)
    config = folder / "tiny.yaml"
    config.write_text(TINY.format(folder=folder))
    return config


def ray_ns(
    *words: str, env: dict[str, str] | None = None, check: bool = True, seconds: float = 560
) -> subprocess.CompletedProcess[str]:
    """One command line of ray-ns in a process of its own, ended after so many seconds."""
    command = [str(Path(sys.executable).with_name("ray-ns")), *words]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(env or {})}, timeout=seconds)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(words)}: exit {done.returncode}\n{done.stderr[-3000:]}")
    return done


def faulty(fault: str | None = None) -> dict[str, str]:
    """Environment in which ``faults/inject`` makes the fault happen."""
    path = os.pathsep.join([str(INJECT), os.environ.get("PYTHONPATH", "")])
    return {"PYTHONPATH": path} | ({"RAY_NS_FAULT": fault} if fault else {})


def report(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The JSON that ``run --json`` printed."""
    return json.loads(done.stdout.splitlines()[-1])


def digests(run: Path) -> dict[str, bytes]:
    """Every commit of a run by its place: equal where and only where two runs made the same things."""
    return {path.parent.relative_to(run).as_posix(): path.read_bytes() for path in sorted(run.rglob("commit.json"))}


def files(run: Path) -> dict[str, tuple[int, int]]:
    """Every file of a run with its size and mtime: what a rerun must leave as it is."""
    stats = {path.relative_to(run).as_posix(): path.stat() for path in sorted(run.rglob("*")) if path.is_file()}
    return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}


class Finished:
    """One uninterrupted tiny run, shared by the tests that only read it, copy it, or compare with it."""

    def __init__(self, folder: Path) -> None:
        self.config = write_tiny(folder)
        self.run = folder / "run"
        self.done = ray_ns("run", str(self.config), "--json")
        self.report = report(self.done)
