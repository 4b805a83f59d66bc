"""The guard of a rebuild: the digest of every commit of a tiny run, which moving code about must not change.

``python tests/support/guard.py FOLDER`` makes the run below FOLDER (two rounds, fine-tuning, the control, a selection
by other settings, an ingest) and prints a line per commit: its digest, its place. ``guard.txt`` beside this file is
what one machine printed. Weights depend on the processor, so compare lines that one machine printed.
"""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from support.tiny_run import ray_ns, write_tiny

SETTINGS = (
    "run.rounds=2",
    "run.patience=2",
    "control.enabled=true",
    "teacher.finetune.steps=4",
    "teacher.finetune.freeze=1",
    "student.finetune.steps=3",
    "student.finetune.size=32",
    "student.eval_steps=10",
    "student.patience=3",
    "label.keep=full",
)
WRITTEN = 1_700_000_000  # seconds: the source's files carry one time, as it goes into the digests


def digests(run: Path) -> dict[str, str]:
    """The digest of each commit by its place."""
    return {
        path.parent.relative_to(run).as_posix(): json.loads(path.read_bytes())["seal"]
        for path in sorted(run.rglob("commit.json"))
    }


def main(folder: Path) -> None:
    """Make the runs and print their digests."""
    folder.mkdir(parents=True)
    config = write_tiny(folder)
    for path in (folder / "data").rglob("*"):
        os.utime(path, (WRITTEN, WRITTEN))
    ray_ns("run", str(config), *SETTINGS, seconds=1200)
    ray_ns("select", str(config), *SETTINGS, "select.threshold=0.25", "--round", "1")
    ray_ns("ingest", str(folder / "data/pool"), str(folder / "packed"), "--size", "20")
    for run in (folder / "run", folder / "packed"):
        for place, digest in digests(run).items():
            print(digest, f"{run.name}/{place}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
