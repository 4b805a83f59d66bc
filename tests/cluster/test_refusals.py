"""What cannot work on a cluster is refused in one line of its own before anything of the run is written."""

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from support.nodes import Nodes, cluster
from support.tiny_run import write_tiny

import ray_ns

pytestmark = pytest.mark.cluster
HIDE = """
import sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "ray_ns":
            raise ModuleNotFoundError(f"No module named {name!r}")
sys.meta_path.insert(0, Hide())
"""


class Place:
    """A config, a folder that all nodes share, and one that none does."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.shared, self.unshared = folder, folder / "shared", folder / "disk"
        self.unshared.mkdir()
        self.config = write_tiny(folder)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("refused"))


@pytest.fixture(scope="module")
def nodes(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with cluster(tmp_path_factory.mktemp("nodes"), own=[place.unshared]) as running:
        yield running


def refusal(
    nodes: Nodes, place: Place, *overrides: str, run: Path | None = None, env: Mapping[str, str] | None = None
) -> str:
    """The line in which a run is refused. Nothing of it is written."""
    run = run or place.shared / "run"
    began = time.monotonic()
    done = nodes.run("ray-ns", "run", str(place.config), f"run.dir={run}", *overrides, env=env, check=False)
    assert time.monotonic() - began < 60
    return of(done, done.stderr, 2, run)


def of(done: "subprocess.CompletedProcess[str]", text: str, code: int, run: Path) -> str:
    assert done.returncode == code, done.stdout + done.stderr
    lines = {
        line.partition("ray-ns: ")[2] for line in text.splitlines() if "ray-ns: " in line
    }  # ray job prints it twice
    assert len(lines) == 1, text
    assert "Traceback" not in text
    assert not [path for path in run.rglob("*") if path.is_file()]
    return lines.pop()


@contextlib.contextmanager
def one_more(nodes: Nodes, python_path: Path) -> Iterator[str]:
    """A node whose Python looks there first; its address."""
    node = nodes.add(env={"PYTHONPATH": f"{python_path}:{nodes.env.get('PYTHONPATH', '')}"})
    try:
        yield node.address
    finally:
        node.terminate()
        node.wait()


def test_a_run_directory_that_nodes_do_not_share(nodes: Nodes, place: Place) -> None:
    run = place.unshared / "run"
    line = refusal(nodes, place, run=run)
    assert all(word in line for word in ("2 of 3 nodes", "10.77.0.3", "10.77.0.4", str(run), "s3://")), line


def test_images_that_nodes_do_not_share(nodes: Nodes, place: Place) -> None:
    pool = place.unshared / "pool"
    shutil.copytree(place.folder / "data/pool", pool)
    line = refusal(nodes, place, f"data.pool={pool}")
    assert all(word in line for word in ("2 of 3 nodes", str(pool), "cannot be read there")), line


def test_a_relative_run_directory_in_a_job(nodes: Nodes, place: Place, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(place.config.read_text())
    words = ("ray-ns", "run", "tiny.yaml", "run.dir=runs/tiny")
    done = nodes.submit(*words, working_dir=tmp_path, job="relative", check=False)
    assert '"driver_exit_code": 2' in nodes.http("/api/jobs/relative").decode()
    line = of(done, done.stdout, 1, tmp_path / "runs")
    assert not list(nodes.ray_folder.rglob("runs/tiny"))
    assert all(word in line for word in ("run.dir", "working directory", "URL")), line


def test_a_missing_token(nodes: Nodes, place: Place) -> None:
    line = refusal(nodes, place, env={"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": ""})
    assert "asks for a token" in line


def test_a_wrong_token(nodes: Nodes, place: Place) -> None:
    line = refusal(nodes, place, env={"RAY_AUTH_TOKEN": "0" * 32})
    assert "token" in line
    assert str(nodes.token) not in line


def test_an_address_where_nobody_answers(nodes: Nodes, place: Place) -> None:
    for address in ("10.77.0.9:6380", "10.99.0.1:6379", "no-such-host:6379"):
        assert f"cluster.address = {address}: nobody answers there" in refusal(
            nodes, place, f"cluster.address={address}"
        )


def test_a_node_without_the_package(nodes: Nodes, place: Place, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(HIDE)
    with one_more(nodes, tmp_path) as address:
        line = refusal(nodes, place)
    assert all(word in line for word in (f"1 of 4 nodes cannot do this run's work. {address}", "no ray_ns")), line


def test_a_node_with_another_version(nodes: Nodes, place: Place, tmp_path: Path) -> None:
    copy = tmp_path / "ray_ns"
    shutil.copytree(Path(ray_ns.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    text = (copy / "__init__.py").read_text()
    (copy / "__init__.py").write_text(text.replace(f'"{ray_ns.__version__}"', '"0.0.7"'))
    with one_more(nodes, tmp_path) as address:
        line = refusal(nodes, place)
    assert all(word in line for word in (address, f"ray_ns 0.0.7 there, {ray_ns.__version__} here")), line


def test_a_cluster_that_says_token_and_has_none(place: Place, tmp_path: Path) -> None:
    with cluster(tmp_path, 0, token=False) as nodes:
        line = refusal(nodes, place, env={"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 32})
    assert "answers without a token" in line
