"""Nodes that share no disk, with the run and all images in S3, whose server goes for a while: the same commits."""

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.nodes import Nodes, cluster
from support.tiny_run import digests, ray_ns, write_tiny
from support.weed import Weed

from ray_ns.store.objects import ObjectStore, open_store

pytestmark = pytest.mark.cluster
OUTAGE = 45
TWO_WORKERS = "cluster.train_workers=2"
# A corpus on a disk and one in S3 are the same where their files carry the same times, and S3 sets those itself.
PUT = """
import json, pathlib, sys
from ray_ns.corpora.corpus import Corpus
from ray_ns.store.objects import open_store
store, root = open_store("s3://runs/data"), pathlib.Path(sys.argv[1])
for path in sorted(root.rglob("*.parquet")):
    store.put(path.relative_to(root).as_posix(), path.read_bytes())
names = sorted({path.parent.name for path in root.rglob("*.parquet")})
corpora = {name: Corpus.scan(f"s3://runs/data/{name}", "image", None) for name in names}
print(json.dumps({f"{name}/{shard.path}": shard.stamp for name, it in corpora.items() for shard in it.shards}))
"""


class Clusters:
    """The nodes, the S3 server beside them, and the data that the server alone has where the nodes are."""

    def __init__(self, nodes: Nodes, server: Weed, data: Path, config: Path) -> None:
        self.nodes, self.server, self.data, self.config = nodes, server, data, config


@pytest.fixture
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clusters]:
    config = write_tiny(tmp_path)
    data, folder = tmp_path / "data", tmp_path / "weed"
    folder.mkdir()
    server = Weed(folder, "runs")
    for name, value in server.items():
        monkeypatch.setenv(name, value)
    with cluster(tmp_path / "nodes", own=[data], env=server) as nodes:
        with nodes.inside():
            server.start()
        try:
            yield Clusters(nodes, server, data, config)
        finally:
            server.kill()


def test_nodes_without_a_shared_disk_commit_what_one_disk_does(apart: Clusters, tmp_path: Path) -> None:
    nodes = apart.nodes
    for name, stamp in json.loads(nodes.run(sys.executable, "-c", PUT, str(apart.data)).stdout).items():
        os.utime(apart.data / name, ns=(stamp, stamp))
    store = open_store("s3://runs/run")
    places = [f"data.{name}=s3://runs/data/{name}" for name in ("labelled", "validation", "test", "pool")]
    output = nodes.start("ray-ns", "run", str(apart.config), "run.dir=s3://runs/run", TWO_WORKERS, *places)
    output.until(lambda: keys(nodes, store, "rounds/1/label/done/"), 300)
    apart.server.kill()
    time.sleep(OUTAGE)
    assert output.runs(), output.text()
    with nodes.inside():
        apart.server.start()
    assert output.end(300) == 0, output.text()
    with nodes.inside():
        there = {
            key.removesuffix("/commit.json"): store.get(key) for key in store.list("") if key.endswith("/commit.json")
        }
    ray_ns("run", str(apart.config), f"run.dir={tmp_path / 'local'}", TWO_WORKERS, "cluster.cpus=2")
    assert there == digests(tmp_path / "local")


def keys(nodes: Nodes, store: ObjectStore, place: str) -> list[str]:
    with nodes.inside():
        return list(store.list(place))
