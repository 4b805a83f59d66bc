"""Ingest of what lies in S3, into S3: what comes out is what comes of the same files on a disk, kills and all."""

import io
import json
import signal
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.tiny_run import faulty, ray_ns, write_tiny
from support.weed import weed

from ray_ns.corpora.corpus import Corpus
from ray_ns.corpora.formats.place import Place

pytestmark = pytest.mark.ray

BUCKET = "s3://pictures"
FACTS = {"read": 40, "images": 38, "duplicates": 1, "leaks": 0, "quarantine": {"not_an_image": 1}}


def pictures(encode: Callable[..., bytes]) -> dict[str, bytes]:
    """40 files in two class folders: one of them twice, one no picture."""
    rng = np.random.default_rng(0)
    files = {
        f"{'cat' if number % 2 else 'dog'}/{number:02d}.png": encode(rng.integers(0, 256, (32, 32)).astype(np.uint8))
        for number in range(40)
    }
    return files | {"dog/32.png": files["dog/12.png"], "cat/07.png": b"no picture"}


def tar(files: dict[str, bytes]) -> bytes:
    """The files, the number of its class beside each."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for name, data in files.items():
            label = str(int(name.startswith("dog"))).encode()
            for member, content in {name: data, name.replace(".png", ".cls"): label}.items():
                info = tarfile.TarInfo(member)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return sink.getvalue()


class Bucket:
    """The same pictures in S3 as ``folders`` and as four ``tars``, and as ``folders`` on a disk."""

    def __init__(self, folder: Path, files: dict[str, bytes]) -> None:
        import boto3

        self.disk = folder / "folders"
        client = boto3.client("s3")
        for name, data in files.items():
            client.put_object(Bucket="pictures", Key=f"folders/{name}", Body=data)
            (self.disk / name).parent.mkdir(parents=True, exist_ok=True)
            (self.disk / name).write_bytes(data)
        for first in range(0, 40, 10):
            some = dict(list(files.items())[first : first + 10])
            client.put_object(Bucket="pictures", Key=f"tars/{first:02d}.tar", Body=tar(some))


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory, encode: Callable[..., bytes]) -> Iterator[Bucket]:
    folder = tmp_path_factory.mktemp("s3")
    with pytest.MonkeyPatch.context() as patch, weed(folder, "pictures") as env:
        for name, value in env.items():
            patch.setenv(name, value)
        yield Bucket(folder, pictures(encode))


def ingest(source: str, destination: str, fault: str | None = None) -> dict:
    """What the ingest says of itself; killed by ``fault``, nothing."""
    words = ("--shard-rows", "10", "--max-quarantined", "0.1", "--json")
    done = ray_ns("ingest", source, destination, *words, env=faulty(fault) if fault else None, check=fault is None)
    assert done.returncode == (-signal.SIGKILL if fault else 0), done.stderr[-2000:]
    return {} if fault else json.loads(done.stdout)


def packed(root: str) -> dict[str, tuple[int, bytes]]:
    """Label and bytes of every image that a reader of the packed corpus meets, by its name in the source."""
    corpus, place = Corpus.scan(root, "image", "label"), Place.of(root)
    tables = []
    for shard in corpus.shards:
        with place.open(shard.path) as file:
            tables.append(pq.read_table(file))
    table = pa.concat_tables(tables)
    names = [name.rpartition(": ")[2] for name in table["source"].to_pylist()]
    assert len(set(names)) == len(names)
    return dict(zip(names, zip(table["label"].to_pylist(), table["image"].to_pylist(), strict=True), strict=True))


def test_an_ingest_from_s3_to_s3_killed_and_resumed_packs_what_lies_there(
    bucket: Bucket, encode: Callable[..., bytes]
) -> None:
    out = f"{BUCKET}/out/tars"
    ingest(f"{BUCKET}/tars", out, "after:ingest-0001/data/.*images.parquet:1")
    assert "under way" in ray_ns("status", out).stdout
    found = ingest(f"{BUCKET}/tars", out)
    assert {name: found[name] for name in FACTS} == FACTS
    assert len(found["shards"]) == 4
    wanted = pictures(encode)
    del wanted["dog/32.png"], wanted["cat/07.png"]
    assert packed(out) == {name: (int(name.startswith("dog")), data) for name, data in wanted.items()}
    assert "all as they were written" in ray_ns("verify", out).stdout
    seen = json.loads(ray_ns("inspect", out, "--labelled", "--json").stdout)
    assert (seen["images"], seen["unreadable"]) == (38, 0)


@pytest.mark.chaos
def test_from_anywhere_to_anywhere_the_same_images_are_packed(bucket: Bucket, tmp_path: Path) -> None:
    disk = str(bucket.disk)
    facts = ingest(disk, str(tmp_path / "out"))
    wanted = packed(str(tmp_path / "out"))
    places = {
        f"{BUCKET}/folders": f"{BUCKET}/out/folders",
        disk: f"{BUCKET}/out/from-disk",
        f"{BUCKET}/tars": str(tmp_path / "from-tars"),
    }
    for source, destination in places.items():
        assert {name: ingest(source, destination)[name] for name in FACTS} == {name: facts[name] for name in FACTS}
        assert packed(destination) == wanted, source


@pytest.mark.chaos
def test_a_run_labels_a_pool_that_lies_packed_in_s3(bucket: Bucket, tmp_path: Path) -> None:
    pool = f"{BUCKET}/out/pool"
    ingest(f"{BUCKET}/folders", pool)
    config = write_tiny(tmp_path)
    ray_ns("run", str(config), f"data.pool={pool}", "--until", "label", "--json")
    commit = json.loads((tmp_path / "run/rounds/1/label/commit.json").read_text())
    assert commit["summary"]["rows"] == 38
    assert not commit["summary"]["quarantine"]
