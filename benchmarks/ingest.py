"""Ingest of many small JPEG files beside a plain tar of them: images per second, and the driver's memory.

Files of 1.5 kB or so in folders of 1,000, just written and so in the page cache for both. A tenth of them is ingested
first: what the driver's memory grows by from there is what more files cost it. ``tar`` copies bytes one file after the
other; ingest reads every file twice, hashes and decodes it, and writes what it has read with fsync. Ours is timed as a
command, from its start to its end, Ray's included. The last line is a JSON object.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg

SIDE = 48


def write_files(folder: Path, count: int) -> None:
    """``count`` different JPEGs: smooth noise, with a little of every file's own."""
    rng = np.random.default_rng(0)
    base = rng.integers(0, 256, (64, SIDE // 8, SIDE // 8, 3)).repeat(8, 1).repeat(8, 2)
    for number in range(count):
        if number % 1000 == 0:
            below = folder / f"{number // 1000:04d}"
            below.mkdir(parents=True)
        pixels = (base[number % 64] + rng.integers(-12, 13, (SIDE, SIDE, 3))).clip(0, 255).astype(np.uint8)
        (below / f"{number:08d}.jpg").write_bytes(simplejpeg.encode_jpeg(pixels, quality=85, colorspace="RGB"))


def ingested(source: Path, destination: Path) -> dict[str, Any]:
    """Seconds, images, and the driver's peak memory in MB, of one ingest in a process of its own."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "benchmarks.ingest", "--drive", str(source), str(destination)]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]
    return {"seconds": time.perf_counter() - began, **json.loads(said)}


def drive(source: str, destination: str) -> None:
    """The ingest itself."""
    from ray_ns.engine.ingest.opening import ingest
    from ray_ns.engine.ingest.settings import Ingest

    (commit,) = ingest(Ingest(source, destination, labels=False), False, "auto")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"images": commit.summary["images"], "bytes": commit.summary["bytes"], "driver_mb": peak}))


def main() -> None:
    """Write the files, tar them, ingest a tenth and all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--drive", nargs=2, metavar=("SRC", "DST"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.drive:
        drive(*asked.drive)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_files(folder / "tenth", asked.files // 10)
        write_files(folder / "all", asked.files)
        began = time.perf_counter()
        subprocess.run(["tar", "cf", str(folder / "all.tar"), "-C", str(folder / "all"), "."], check=True)
        os.sync()
        tar = time.perf_counter() - began
        tenth = ingested(folder / "tenth", folder / "packed-tenth")
        whole = ingested(folder / "all", folder / "packed")
        assert whole["images"] == asked.files
        found = {
            "files": asked.files,
            "mb": whole["bytes"] / 1e6,
            "tar_images_per_second": asked.files / tar,
            "ingest_images_per_second": asked.files / whole["seconds"],
            "ingest_beyond_start": (asked.files - asked.files // 10) / (whole["seconds"] - tenth["seconds"]),
            "driver_mb_tenth": tenth["driver_mb"],
            "driver_mb": whole["driver_mb"],
            "cpus": len(os.sched_getaffinity(0)),
        }
        print(json.dumps({key: round(value, 1) for key, value in found.items()}))


if __name__ == "__main__":
    main()
