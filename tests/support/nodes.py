"""A Ray cluster of several nodes on this machine: a head and raylets as processes of ``ray start``, as an operator's.

They live in a network and a PID namespace of their own: nothing outside reaches them, they reach nothing outside, and
when their namespace ends so does every process in it. Each node has its own address, Ray folder and ports, and its own
empty folders in the place of those that it shall not share. Needs root and ``unshare``.
"""

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support import namespaces

ADDRESSES = "10.77.0"  # on the namespace's loopback: to Ray and to us these are machines of a network
PORT, DASHBOARD = 6379, 8265
OBJECTS_MB = 80
RUNNING = {"PENDING", "RUNNING"}  # of a job that has not ended
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_raylet_start_wait_time_s": "180",
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "3",
    "PYTHONUNBUFFERED": "1",
    "GLOO_SOCKET_IFNAME": "lo",  # all nodes share one host name, which says nothing of their addresses
}
# Of the process that runs the tests, nothing of these may reach a cluster.
_NOT_OURS = ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_API_SERVER_ADDRESS")


@dataclass
class Node:
    """One ``ray start --block`` and all that it started. ``pid``: as this process sees it."""

    address: str
    folder: Path
    pid: int

    def kill(self) -> None:
        """The machine is gone: SIGKILL for each of its processes."""
        for pid in namespaces.descendants(self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.wait(20)

    def terminate(self) -> None:
        """As Kubernetes ends a pod: SIGTERM. Returns at once, ``wait`` waits."""
        os.kill(self.pid, signal.SIGTERM)

    def wait(self, seconds: float = 60) -> None:
        """Return when it has ended."""
        deadline = time.monotonic() + seconds
        while Path(f"/proc/{self.pid}").exists():
            assert time.monotonic() < deadline, f"node {self.address} has not ended in {seconds:.0f} s"
            time.sleep(0.1)


class Started:
    """A command in the background. ``log``: its output and its errors."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self._process, self.log = process, log

    def runs(self) -> bool:
        """Whether it still does."""
        return self._process.poll() is None

    def text(self) -> str:
        """What it has printed so far."""
        return self.log.read_text(errors="replace")

    def signal(self, number: int) -> None:
        """Signal it (and not the door of its namespace, which is what was started)."""
        os.kill(namespaces.inner(self._process.pid), number)

    def until(self, done: Callable[[], object], seconds: float) -> None:
        """Return when ``done()`` is true, which must be before the end and in so many seconds."""
        deadline = time.monotonic() + seconds
        while not done():
            assert self.runs(), f"it has ended: {self.text()}"
            if time.monotonic() > deadline:
                namespaces.kill(self._process)
                raise AssertionError(f"not in {seconds:.0f} s: {self.text()}")
            time.sleep(0.2)

    def end(self, seconds: float) -> int:
        """Its exit code, when it has ended by itself."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            namespaces.kill(self._process)
            raise AssertionError(f"no end in {seconds:.0f} s: {self.text()}") from None


class Nodes:
    """A running cluster. ``env``: what a process that joins it needs; ``folder``: where the output of each lies."""

    def __init__(self, space: namespaces.Namespace, folder: Path, ray_folder: Path, env: Mapping[str, str]) -> None:
        self.address, self.dashboard = f"{ADDRESSES}.2:{PORT}", f"http://{ADDRESSES}.2:{DASHBOARD}"
        self.folder, self.ray_folder, self.nodes = folder, ray_folder, list[Node]()
        self.space, self._started, self._begun = space, 0, 0
        self._base = {name: value for name, value in os.environ.items() if name not in _NOT_OURS} | SETTINGS
        self._base |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(folder), **env}
        self.token = self._base.get("RAY_AUTH_TOKEN")
        self.env = {**self._base, "RAY_ADDRESS": self.address, "RAY_API_SERVER_ADDRESS": self.dashboard}

    def head(self, env: Mapping[str, str] | None = None) -> None:
        """Start the node without CPUs that drivers and jobs run on, and its dashboard."""
        self._node(
            [
                *("--head", f"--port={PORT}", "--num-cpus=0", "--include-dashboard=true"),
                *(f"--dashboard-host={ADDRESSES}.2", f"--dashboard-port={DASHBOARD}"),
            ],
            env=env,
        )
        self._until("the dashboard answers", lambda: self.http("/api/version"))

    def add(
        self,
        cpus: int = 2,
        gpus: int = 0,
        labels: Mapping[str, str] | None = None,
        own: Sequence[Path] = (),
        env: Mapping[str, str] | None = None,
    ) -> Node:
        """Start a node; returns when the head has it. ``own``: folders in whose place it sees empty ones of its own."""
        words = [f"--address={self.address}", f"--num-cpus={cpus}", f"--num-gpus={gpus}"]
        if labels:
            words.append("--labels=" + ",".join(f"{name}={value}" for name, value in labels.items()))
        return self._node(words, own, env)

    def run(
        self,
        *command: str,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        check: bool = True,
        seconds: float = 560,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as a driver on the head would be; ``env`` comes on top of the cluster's, "" takes away."""
        process = self.space.start(
            list(command),
            env=self._with(env),
            cwd=cwd or self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            namespaces.kill(process)
            raise
        done = subprocess.CompletedProcess(command, process.returncode, out, err)
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)}: exit {done.returncode}\n{out[-3000:]}\n{err[-3000:]}")
        return done

    def start(self, *command: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> "Started":
        """The same in the background."""
        self._begun += 1
        log = self.folder / f"command-{self._begun}.log"
        with log.open("wb") as sink:
            process = self.space.start(
                list(command), env=self._with(env), cwd=cwd or self.folder, stdout=sink, stderr=sink
            )
        return Started(process, log)

    def _with(self, env: Mapping[str, str] | None) -> dict[str, str]:
        return {name: value for name, value in {**self.env, **(env or {})}.items() if value}

    def submit(
        self,
        *command: str,
        working_dir: Path,
        job: str | None = None,
        wait: bool = True,
        env: Mapping[str, str] | None = None,
        check: bool = True,
        seconds: float = 560,
    ) -> subprocess.CompletedProcess[str]:
        """``ray job submit`` from a working directory. ``job``: its submission id."""
        words = ["ray", "job", "submit", "--working-dir", str(working_dir)]
        words += ["--submission-id", job] if job else []
        words += [] if wait else ["--no-wait"]
        return self.run(*words, "--", *command, env={"RAY_ADDRESS": "", **(env or {})}, check=check, seconds=seconds)

    def job(self, job: str) -> dict[str, Any]:
        """What the dashboard says of a job."""
        found: dict[str, Any] = json.loads(self.http(f"/api/jobs/{job}"))
        return found

    def ended(self, job: str, seconds: float) -> str:
        """The status of a job, once it has ended."""
        self._until(f"job {job} has ended", lambda: self.job(job)["status"] not in RUNNING or None, seconds=seconds)
        return str(self.job(job)["status"])

    def http(self, path: str, url: str | None = None, token: bool = True) -> bytes:
        """What the dashboard (or another server in the namespace) answers."""
        headers = {"Authorization": f"Bearer {self.token}"} if token and self.token else {}
        with (
            self.inside(),
            urllib.request.urlopen(
                urllib.request.Request((url or self.dashboard) + path, headers=headers), timeout=20
            ) as answer,
        ):
            return answer.read()

    def inside(self) -> contextlib.AbstractContextManager[None]:
        """While the block runs, this thread's sockets and the processes it starts are in the namespace."""
        return self.space.entered()

    def logs(self, lines: int = 15) -> str:
        """The ends of what the nodes wrote: for the message of a failure."""
        texts = {path.name: path.read_text(errors="replace") for path in sorted(self.folder.glob("node-*.log"))}
        return "\n".join("\n".join([f"--- {name}", *text.splitlines()[-lines:]]) for name, text in texts.items())

    def _node(self, words: list[str], own: Sequence[Path] = (), env: Mapping[str, str] | None = None) -> Node:
        number = self._started + 2
        self._started += 1
        address, ray_folder = f"{ADDRESSES}.{number}", self.ray_folder / str(number)
        command = [
            *("ray", "start", "--block", "--disable-usage-stats", f"--node-ip-address={address}", *words),
            *(f"--object-store-memory={OBJECTS_MB << 20}", f"--temp-dir={ray_folder}"),
            *(f"--metrics-export-port={20000 + number}", f"--dashboard-agent-listen-port={20100 + number}"),
            *(f"--min-worker-port={21000 + 1000 * number}", f"--max-worker-port={21999 + 1000 * number}"),
        ]
        mounts = []
        for folder in own:
            mine = self.ray_folder / f"own-{number}" / folder.relative_to("/")
            mine.mkdir(parents=True)
            mounts.append((mine, folder))
        merged = {name: value for name, value in {**self._base, **(env or {})}.items() if value}
        log = self.folder / f"node-{number}.log"
        with log.open("wb") as sink:
            process = self.space.start(command, mounts, env=merged, cwd=self.folder, stdout=sink, stderr=sink)
        self._until(f"node {address} has started", lambda: b"Ray runtime started" in log.read_bytes() or None, process)
        node = Node(address, ray_folder, namespaces.inner(process.pid))
        self.nodes.append(node)
        return node

    def _until(
        self, what: str, done: Any, process: "subprocess.Popen[Any] | None" = None, seconds: float = 180
    ) -> None:
        deadline = time.monotonic() + seconds
        while True:
            with contextlib.suppress(OSError):
                if done() is not None:
                    return
            assert process is None or process.poll() is None, f"ended before this: {what}\n{self.logs()}"
            assert time.monotonic() < deadline, f"not in {seconds:.0f} s: {what}\n{self.logs()}"
            time.sleep(0.2)


@contextlib.contextmanager
def cluster(
    folder: Path,
    workers: int = 2,
    *,
    labels: Sequence[Mapping[str, str]] = (),
    gpus: Sequence[int] = (),
    cpus: int = 2,
    own: Sequence[Path] = (),
    token: bool = True,
    env: Mapping[str, str] | None = None,
) -> Iterator[Nodes]:
    """A head without CPUs and so many raylets while the block runs; about 15 s a node.

    ``labels``, ``gpus``: of each raylet, the first first; ``own``: folders that none of them shares with another;
    ``env``: of every process on every node and of drivers; without ``token`` the cluster is open to its namespace.
    Skips the test where there is no root or no ``unshare``.
    """
    missing = namespaces.missing()
    if missing:
        pytest.skip(f"a cluster of several nodes needs network namespaces: {missing}")
    folder.mkdir(parents=True, exist_ok=True)
    ray_folder = Path(tempfile.mkdtemp(prefix="ns-", dir="/tmp"))  # short: sockets lie below it
    auth = (
        {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)} if token else {"RAY_AUTH_MODE": "disabled"}
    )
    try:
        with namespaces.namespace([f"{ADDRESSES}.{number}" for number in range(2, 12)]) as space:
            nodes = Nodes(space, folder, ray_folder, {**auth, **(env or {})})
            nodes.head()
            for number in range(workers):
                nodes.add(
                    cpus,
                    gpus[number] if number < len(gpus) else 0,
                    labels[number] if number < len(labels) else None,
                    own,
                )
            yield nodes
    finally:
        shutil.rmtree(ray_folder, ignore_errors=True)
