"""The same images as one shard of every kind."""

import io
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ray_ns.corpora import pack
from ray_ns.corpora.corpus import Corpus

KINDS = ("plain", "packed", "hugging face", "tar", "folder")


def packed(images: list[bytes]) -> bytes:
    """A packed shard."""
    packer = pack.Packer(pack.schema(False))
    for number, image in enumerate(images):
        packer.add({"image": image, "sha256": bytes(32), "source": f"{number}.png"})
    return packer.bytes()


def write_as(kind: str, root: Path, images: list[bytes], group_rows: int = 70) -> Corpus:
    """A corpus of one shard of that kind; ``group_rows``: of Parquet that is not packed."""
    root.mkdir()
    named = [(f"{number:05d}.png", image) for number, image in enumerate(images)]
    if kind == "folder":
        for name, image in named:
            (root / name).write_bytes(image)
    elif kind == "tar":
        with tarfile.open(root / "0.tar", "w") as archive:
            for name, image in named:
                info = tarfile.TarInfo(name)
                info.size = len(image)
                archive.addfile(info, io.BytesIO(image))
    elif kind == "packed":
        (root / "0.parquet").write_bytes(packed(images))
    else:
        column = {
            "plain": pa.array(images, pa.binary()),
            "hugging face": pa.array([{"bytes": image, "path": name} for name, image in named]),
        }[kind]
        pq.write_table(pa.table({"image": column}), root / "0.parquet", row_group_size=group_rows)
    return Corpus.scan(str(root), "image", None)
