"""CPU seconds of a command with all processes that it starts, on Linux: what a busy machine hardly falsifies.

    python -m benchmarks.cpu ray-ns study configs/study.yaml all

Ray's workers are not waited for by who started them, so the shell's ``time`` misses most of them. Here every process
that has this command's mark in its environment is looked at ``EVERY`` seconds; what one does after its last look is
missed. The figures come last on stderr, as JSON; the exit code is the command's.
"""

import json
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

MARK = "RAY_NS_BENCHMARK_CPU"
EVERY = 0.5
SHOWN = 12  # names of processes, those that took most
TICKS = os.sysconf("SC_CLK_TCK")

Process = tuple[str, str]  # its number, and when it began


def spent(mark: bytes, known: dict[Process, bool]) -> dict[Process, tuple[float, str]]:
    """CPU seconds, so far, and the last name of each process with ``mark`` in its environment.

    ``known``: of which process that is known already; it grows.
    """
    found = {}
    for place in Path("/proc").iterdir():
        if not place.name.isdecimal():
            continue
        try:
            fields = (place / "stat").read_text().rpartition(")")[2].split()
            who = place.name, fields[19]
            if not known.get(who):  # a fork gets its environment when it becomes another program
                known[who] = mark in (place / "environ").read_bytes()
            if known[who]:
                name = (place / "cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
                found[who] = (int(fields[11]) + int(fields[12])) / TICKS, Path(name).name[:40]
        except OSError:  # it has ended, or is another user's
            continue
    return found


def main() -> None:
    """Run the command, and say what it took."""
    name = uuid.uuid4().hex
    began = time.monotonic()
    child = subprocess.Popen(sys.argv[1:], env=os.environ | {MARK: name})
    mark = f"{MARK}={name}".encode()
    known: dict[Process, bool] = {}
    found: dict[Process, float] = {}
    titles: dict[Process, str] = {}
    while child.poll() is None:
        for who, (seconds, title) in spent(mark, known).items():
            found[who] = seconds
            titles[who] = title or titles.get(who, "")  # one that ends has none
        time.sleep(EVERY)
    of_name: dict[str, float] = {}
    for who, seconds in found.items():
        title = titles[who]
        of_name[title] = round(of_name.get(title, 0.0) + seconds, 1)
    told = {
        "cpu_seconds": round(sum(of_name.values()), 1),
        "seconds": round(time.monotonic() - began, 1),
        "processes": len(found),
        "of": dict(sorted(of_name.items(), key=lambda it: -it[1])[:SHOWN]),
    }
    print(json.dumps(told), file=sys.stderr)
    sys.exit(child.returncode)


if __name__ == "__main__":
    main()
