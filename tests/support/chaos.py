"""``make chaos SEEDS=1..12``: schedules of deaths over a run of two rounds, and whether it ends as an undisturbed one.

``python tests/support/chaos.py SEEDS [FOLDER]`` plays each seed (``schedules``) on a cluster of two nodes, the run
directory in an S3 server of its own. The same command is started again until it ends. FOLDER keeps what was made: the
images, the undisturbed run on a local disk, the logs, and the table of all seeds played there.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from support.listeners import tree
from support.schedules import Strike, schedule, seeds
from support.tiny_run import digests, ray_ns, write_tiny
from support.two_nodes import SETTINGS
from support.weed import Weed, weed

from ray_ns.errors import IntegrityError, ResumableError
from ray_ns.store.objects import ObjectStore, open_store
from ray_ns.store.verify import verify

ROUNDS = ("run.rounds=2", "run.patience=2", "cluster.train_workers=2", "cluster.cpus=2")
STARTS, SECONDS = 10, 900  # of a seed, at most
POLL = 0.1
PROCESSES = {"trainer": b"RayTrainWorker", "teacher": b"MapWorker"}  # as Ray names them in the list of processes
QUICK = {  # so that a lost node is missed within seconds, and a node and workers may start on a machine with much to do
    "RAY_raylet_start_wait_time_s": "180",
    "RAY_worker_niceness": "0",
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "4",
}
HEADER = "| seed | strikes | starts | seconds | commits |\n|---|---|---|---|---|\n"
# The head has a CPU, the other node two: trainings of two workers and some of each labelling are there.
CLUSTER = """
import sys
from ray.cluster_utils import Cluster

node = dict(object_store_memory=100 << 20)
head = dict(node, num_cpus=1, include_dashboard=False, node_ip_address="127.0.0.1")
cluster = Cluster(initialize_head=True, head_node_args=head)
second = cluster.add_node(num_cpus=2, **node)
print(cluster.address, flush=True)
while sys.stdin.readline().strip() == "lose":
    cluster.remove_node(second, allow_graceful=False)
    second = cluster.add_node(num_cpus=2, **node)
    print("lost", flush=True)
cluster.shutdown()
"""


class Cluster:
    """Two nodes in processes of their own, the second of which can be lost. ``env``: of a driver that joins it."""

    def __init__(self, env: dict[str, str], log: Path) -> None:
        with log.open("wb") as sink:
            self._script = subprocess.Popen(
                [sys.executable, "-c", CLUSTER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=sink,
                text=True,
                env={**os.environ, **SETTINGS, **QUICK, **env},
            )
        assert self._script.stdout is not None
        address = self._script.stdout.readline().strip()
        assert address, f"the cluster did not start: {log.read_text(errors='replace')[-2000:]}"
        self.env = {**SETTINGS, **env, "RAY_ADDRESS": address}

    def lose(self) -> None:
        """The second node dies with all its processes; another one joins."""
        assert self._script.stdin is not None
        assert self._script.stdout is not None
        self._script.stdin.write("lose\n")
        self._script.stdin.flush()
        assert self._script.stdout.readline().strip() == "lost"

    def find(self, name: bytes) -> set[int]:
        """The processes of the cluster with this in their names."""
        found = set()
        for pid in tree(self._script.pid):
            with contextlib.suppress(OSError):
                title = Path(f"/proc/{pid}/cmdline").read_bytes()
                if title.startswith(b"ray::") and name in title:
                    found.add(pid)
        return found

    def end(self) -> None:
        """End it with all its processes."""
        left = tree(self._script.pid)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._script.communicate("\n", timeout=30)
        for pid in left:
            with contextlib.suppress(OSError):
                if b"ray" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)


class Played:
    """A run by one seed: ``starts`` of the command, ``struck`` strikes; then its commits are compared."""

    def __init__(self, config: Path, store: ObjectStore, cluster: Cluster, server: Weed, log: Path) -> None:
        self._command = [str(Path(sys.executable).with_name("ray-ns")), "run", str(config), f"run.dir={store.url}"]
        self._store, self._cluster, self._server, self._log = store, cluster, server, log
        self._driver: subprocess.Popen[bytes] | None = None
        self._expected: Strike | None = None
        self._earlier: set[int] = set()
        self.starts = 0
        self.struck: list[Strike] = []

    def end(self, strikes: list[Strike]) -> None:
        """Start the command until it ends, the strikes on the way."""
        until = time.monotonic() + SECONDS
        try:
            for strike in strikes:
                while not self._is_due(strike):
                    if self._ended():
                        return
                    assert time.monotonic() < until, f"{strike} never came"
                    time.sleep(POLL)
                self._strike(strike)
                self.struck.append(strike)
                self._tell(f"struck: {strike}")
            while not self._ended():
                assert time.monotonic() < until, "it does not end"
                time.sleep(POLL)
        finally:
            if self._driver is not None:
                self._driver.kill()
                self._driver.wait()

    def _ended(self) -> bool:
        """Whether the command has come to its end; one that was stopped or killed is started again."""
        code = None if self._driver is None else self._driver.poll()
        if self._driver is not None and code is None:
            return False
        if code == 0:
            return True
        assert code in (None, 3, -signal.SIGKILL), f"exit {code}: see {self._log}"
        self.starts += 1
        assert self.starts <= STARTS, "it comes to no end"
        self._tell(f"start {self.starts}")
        with self._log.open("ab") as log:
            self._driver = subprocess.Popen(
                [*self._command, *ROUNDS], stdout=log, stderr=log, env={**os.environ, **self._cluster.env}
            )
        return False

    def _is_due(self, strike: Strike) -> bool:
        """Whether the evidence is there, and somebody to strike."""
        if self._driver is None or not strike.is_due(self._store.list("")):
            return False
        if strike.victim == "driver":
            return self._driver.poll() is None
        return strike.victim not in PROCESSES or bool(self._victims(strike))

    def _victims(self, strike: Strike) -> set[int]:
        """Processes that may be killed: where a stage begins, those that were not there before it."""
        found = self._cluster.find(PROCESSES[strike.victim])
        if strike is not self._expected:
            self._expected, self._earlier = strike, found if strike.begins else set()
        return found - self._earlier

    def _strike(self, strike: Strike) -> None:
        if strike.victim == "driver":
            assert self._driver is not None
            self._driver.kill()
            self._driver.wait()
        elif strike.victim == "node":
            self._cluster.lose()
        elif strike.victim == "store":
            self._server.kill()
            time.sleep(strike.seconds)
            self._server.start()
        else:
            for pid in sorted(self._victims(strike))[:1]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _tell(self, line: str) -> None:
        with self._log.open("a") as log:
            log.write(f"--- {line}\n")


def commits(store: ObjectStore) -> dict[str, bytes | None]:
    """Every commit of a run by its stage."""
    return {key.removesuffix("/commit.json"): store.get(key) for key in store.list("") if key.endswith("/commit.json")}


def differs(made: Mapping[str, bytes | None], undisturbed: Mapping[str, bytes]) -> str:
    """In words, which commits are not those of the undisturbed run; empty where all are."""
    other = sorted(it for it in {*made, *undisturbed} if made.get(it) != undisturbed.get(it))
    return f"NOT EQUAL: {', '.join(other)}" if other else ""


@contextlib.contextmanager
def surroundings(folder: Path) -> Iterator[tuple[Weed, Cluster]]:
    """An S3 server and a cluster whose processes reach it, as this process does."""
    (folder / "weed").mkdir(parents=True)
    with weed(folder / "weed", "runs") as server:
        os.environ.update(server)
        cluster = Cluster(dict(server), folder / "cluster.log")
        try:
            yield server, cluster
        finally:
            cluster.end()


def play(seed: int, config: Path, undisturbed: dict[str, bytes], folder: Path) -> dict[str, Any]:
    """Play one seed; a row of the table."""
    strikes = schedule(seed)
    with tempfile.TemporaryDirectory(prefix="chaos-") as temporary, surroundings(Path(temporary)) as (server, cluster):
        store = open_store(f"s3://runs/seed-{seed}")
        played = Played(config, store, cluster, server, folder / f"seed-{seed}.log")
        began, wrong = time.monotonic(), ""
        try:
            played.end(strikes)
            wrong = differs(commits(store), undisturbed)
            wrong = wrong or "".join(f"DAMAGED: {fault}" for _, fault in verify(store) if fault is not None)
        except (AssertionError, ResumableError, IntegrityError) as error:
            wrong = f"FAILED: {error}"
    return {
        "seed": seed,
        "strikes": "; ".join(f"{it}{'' if it in played.struck else ' (missed)'}" for it in strikes),
        "starts": played.starts,
        "seconds": round(time.monotonic() - began),
        "commits": wrong or f"all {len(undisturbed)} equal",
        "well": not wrong and played.struck == strikes,
    }


def main(words: str, folder: Path) -> int:
    """Play the seeds; the exit code: 1 where a run did not end as the undisturbed one, or a strike was missed."""
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "tiny.yaml"
    if not config.exists():
        write_tiny(folder)
    ray_ns("run", str(config), *ROUNDS)  # a second time it is read only
    undisturbed = digests(folder / "run")
    rows = folder / "rows.jsonl"
    well = True
    for seed in seeds(words):
        row = play(seed, config, undisturbed, folder)
        well &= row["well"]
        print(json.dumps(row), flush=True)
        with rows.open("a") as file:
            print(json.dumps(row), file=file)
    table = {row["seed"]: row for row in map(json.loads, rows.read_text().splitlines())}
    text = "".join(
        f"| {row['seed']} | {row['strikes']} | {row['starts']} | {row['seconds']} | {row['commits']} |\n"
        for _, row in sorted(table.items())
    )
    (folder / "table.md").write_text(HEADER + text)
    print(f"{folder / 'table.md'}:\n{HEADER}{text}", end="")
    return 0 if well else 1


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))  # so that the cluster and the server end too
    sys.exit(main(sys.argv[1], Path(sys.argv[2] if len(sys.argv) > 2 else tempfile.mkdtemp(prefix="chaos-"))))
