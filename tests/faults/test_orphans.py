"""What a driver leaves behind that is killed: nothing, within seconds, and nobody else is ended for it."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.listeners import tree
from support.tiny_run import write_tiny

from ray_ns.engine import reaper

SECONDS = 5.0  # measured: 0.5, and with Ray alone more than 40


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("orphans"))


def identity(pid: int) -> tuple[int, str] | None:
    """Number and start of a process that is alive."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if words[0] == "Z" else (pid, words[19])


MOMENTS = {
    "training": ("rounds/0/train/progress.json", ["cluster.train_loaders=2", "teacher.steps=4000"]),
    "labelling": ("rounds/1/label/data/*", ["label.layout=tasks"]),
}


@pytest.mark.ray
@pytest.mark.parametrize(
    ("moment", "number"),
    [("training", signal.SIGKILL), ("labelling", signal.SIGKILL), ("training", signal.SIGTERM)],
)
def test_all_processes_of_a_killed_driver_are_gone_within_seconds(
    config: Path, tmp_path: Path, moment: str, number: signal.Signals
) -> None:
    marker, settings = MOMENTS[moment]
    command = [str(Path(sys.executable).with_name("ray-ns")), "run", str(config), f"run.dir={tmp_path}/run", *settings]
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not any((tmp_path / "run").glob(marker)):
        assert driver.poll() is None
        time.sleep(0.1)
    left = set(filter(None, map(identity, tree(driver.pid)))) - {identity(driver.pid)}
    assert len(left) > 6
    driver.send_signal(number)
    driver.wait(60)
    until = time.monotonic() + SECONDS
    while left and time.monotonic() < until:
        left = {it for it in left if identity(it[0]) == it}
        time.sleep(0.05)
    assert not {pid: Path(f"/proc/{pid}/comm").read_text() for pid, _ in left}


def test_who_reads_a_session_or_writes_elsewhere_is_not_of_it(tmp_path: Path) -> None:
    session, other = tmp_path / "session_1", tmp_path / "session_11"
    session.mkdir()
    other.mkdir()
    waiting = [sys.executable, "-c", "import sys; held = sys.argv[1:] and open(sys.argv[1]); sys.stdin.read()"]
    with (session / "a.log").open("w") as log, (other / "a.log").open("w") as elsewhere:
        writer = subprocess.Popen(waiting, stdin=subprocess.PIPE, stderr=log)
        reader = subprocess.Popen([*waiting, log.name], stdin=subprocess.PIPE, stdout=elsewhere)
    assert set(reaper.left_over(str(session))) == {writer.pid}
    reaper.reap(str(session))
    assert writer.wait(5) == -signal.SIGKILL
    assert reader.poll() is None
    reader.communicate(timeout=20)
    assert reader.returncode == 0
