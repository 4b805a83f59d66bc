"""Corpora on a real S3 server read as they do on a disk."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from support.weed import weed

from ray_ns.corpora import pack
from ray_ns.corpora.corpus import Corpus
from ray_ns.corpora.formats import folder

NAMES = [f"{number % 3}/{number:02d}.png" for number in range(40)]


def tarred() -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for name in NAMES:
            for member, data in {name: name.encode() * 3000, name.replace("png", "cls"): name[:1].encode()}.items():
                info = tarfile.TarInfo(member)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return sink.getvalue()


def packed() -> bytes:
    packer = pack.Packer(pack.schema(True))
    for name in NAMES:
        packer.add({"image": name.encode() * 3000, "label": int(name[0]), "sha256": bytes(32), "source": name})
    return packer.bytes()


def read(root: str) -> tuple[list[bytes], list[bytes], list[int]]:
    """All images, every third one of each group, labels."""
    corpus = Corpus.scan(root, "image", "label")
    assert Corpus.scan(root, "image", "label", corpus.shards) == corpus
    readers = [corpus.open(shard) for shard in corpus.shards]
    images = [one for it in readers for at in range(len(it.group_rows)) for one in it.images(at).to_pylist()]
    some = [
        one
        for it in readers
        for at, rows in enumerate(it.group_rows)
        for one in it.images(at, np.arange(0, rows, 3)).to_pylist()
    ]
    return images, some, [label for part in corpus.labels(3) for label in part.tolist()]


def test_corpora_in_s3_read_as_on_a_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "GROUP_ROWS", 9)
    files = {f"folders/{name}": name.encode() * 3000 for name in NAMES}
    files |= {f"listed/{name}": name.encode() * 3000 for name in NAMES}
    files["listed/labels.csv"] = "\n".join(["file,label", *(f"{name},{name[:1]}" for name in NAMES)]).encode()
    files["tars/a.tar"] = tarred()
    files["packed/a.parquet"] = packed()
    for name, data in files.items():
        (tmp_path / "disk" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "disk" / name).write_bytes(data)
    (tmp_path / "server").mkdir()
    with weed(tmp_path / "server", "corpora") as env:
        import boto3

        for name, value in env.items():
            monkeypatch.setenv(name, value)
        client = boto3.client("s3", endpoint_url=env["AWS_ENDPOINT_URL"])
        for name, data in files.items():
            client.put_object(Bucket="corpora", Key=name, Body=data)
        for name in ("folders", "listed", "tars", "packed"):
            assert read(f"s3://corpora/{name}") == read(f"{tmp_path}/disk/{name}"), name
