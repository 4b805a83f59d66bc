"""Packed corpora: writing one shard as Parquet, and finding the shards of a packed folder.

Row groups are small (one slice of the label stage each, or 8 MB). Nothing is compressed, since images already are.
Each image can be found and checked by itself (``formats.parquet``), so a reader in random order reads little more than
it needs. ``VERSION`` names the rules by which a shard's bytes are made.
"""

import io
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from ray_ns.corpora.formats.parquet import CRC32, SIZE
from ray_ns.corpora.formats.place import Place, Stat
from ray_ns.errors import InputError, IntegrityError
from ray_ns.images.decode import FORMATS, Reason
from ray_ns.seals import unseal

VERSION = "pack-2"
IMAGES = "images.parquet"
GROUP_ROWS, GROUP_BYTES = 256, 8 << 20
PAGE_BYTES = 1 << 30  # more than a row group, so that each is one page
QUALITY = 92  # of re-encoded JPEGs, 4:2:0; on photographs at 256 px it makes no difference to training

_STAGE = re.compile(r"(hashes|duplicates|ingest)-\d{4}/(plan|commit)\.json")
_COMMIT = re.compile(r"ingest-\d{4}/commit\.json")


def schema(labelled: bool, names: Sequence[str] | None = None) -> pa.Schema:
    """Columns of a packed shard: the image, its label if any, the source's sha256 and name, the image's size.

    ``names``: of the classes, stored the way the library ``datasets`` does.
    """
    fields = [pa.field("image", pa.binary(), nullable=False)] + ([("label", pa.int64())] if labelled else [])
    check = [pa.field(name, pa.uint32(), nullable=False) for name in (SIZE, CRC32)]
    columns = pa.schema([*fields, ("sha256", pa.binary(32)), ("source", pa.string()), *check])
    if names is None:
        return columns
    features: dict[str, Any] = {"image": {"_type": "Image"}, "label": {"names": [*names], "_type": "ClassLabel"}}
    kinds = {"sha256": "binary", "source": "string", SIZE: "uint32", CRC32: "uint32"}
    features |= {name: {"dtype": kind, "_type": "Value"} for name, kind in kinds.items()}
    return columns.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})


@dataclass
class Packer:
    """Takes rows and gives the bytes of one Parquet shard; memory holds the shard and one row group."""

    schema: pa.Schema
    rows: int = field(default=0, init=False)
    size: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._sink = io.BytesIO()
        self._writer = pq.ParquetWriter(
            self._sink,
            self.schema,
            compression="none",
            use_dictionary=False,
            write_page_checksum=True,
            data_page_size=PAGE_BYTES,
            write_statistics=[it for it in self.schema.names if it != "image"],  # the minimum would be an image
        )
        self._group: list[Mapping[str, Any]] = []
        self._held = 0

    def add(self, row: Mapping[str, Any]) -> None:
        """One row; a row group is written once it is full."""
        image = row["image"]
        self._group.append({**row, SIZE: len(image), CRC32: zlib.crc32(image)})
        self.rows += 1
        self.size += len(image)
        self._held += len(image)
        if len(self._group) == GROUP_ROWS or self._held >= GROUP_BYTES:
            self._write()

    def bytes(self) -> bytes:
        """The finished shard."""
        if self._group:
            self._write()
        self._writer.close()
        return self._sink.getvalue()

    def _write(self) -> None:
        self._writer.write_table(pa.Table.from_pylist(self._group, self.schema), row_group_size=GROUP_ROWS)
        self._group, self._held = [], 0


def resized(data: bytes, size: int) -> bytes | Reason:
    """``data`` as a JPEG whose short side has ``size`` pixels, or ``data`` itself if that side is no longer.

    Antialiased (bicubic) at ``QUALITY``. Transparency becomes white. Orientation tags are dropped, since decoding
    ignores them. A ``Reason`` if Pillow cannot decode an image that was decoded before.
    """
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
        width, height = image.size
        if min(width, height) <= size:
            return data
        scale = size / min(width, height)
        target = (max(round(width * scale), size), max(round(height * scale), size))
        image.draft(None, (2 * target[0], 2 * target[1]))
        if image.mode in {"LA", "PA", "RGBA"} or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = image.convert("L" if image.mode in {"1", "L"} else "RGB").resize(target, Image.Resampling.BICUBIC)
        sink = io.BytesIO()
        image.save(sink, "JPEG", quality=QUALITY)
        return sink.getvalue()
    except Exception:  # a decoder may raise anything at all on a hostile file
        return Reason.TRUNCATED


def shards_of(place: Place, files: Mapping[str, Stat]) -> Mapping[str, Stat]:
    """The files of a folder that the commits of its ingests name; all files if no ingest made the folder.

    Raises ``InputError`` if no ingest into the folder has finished, or a shard is not what its commit names;
    ``IntegrityError`` if a commit is damaged, or one before the last is gone.
    """
    if not any(_STAGE.fullmatch(path) for path in files):
        return files
    commits = sorted(path for path in files if _COMMIT.fullmatch(path))
    if not commits:
        raise InputError(
            f"{place.root}: an ingest into it has begun and not finished. Run the same 'ray-ns ingest' again."
        )
    for number, path in enumerate(commits, 1):
        if path != f"ingest-{number:04d}/commit.json":
            raise IntegrityError(
                f"{place.root}: ingest-{number:04d}/commit.json is gone, {path} is there. Restore it from a backup, or "
                f"ingest into another folder."
            )
    shards = {}
    for key, size in (stored for path in commits for stored in _named_by(place, path)):
        found = files.get(key)
        if found is None or found.size != size:
            state = "is gone" if found is None else f"has {found.size} bytes"
            raise InputError(
                f"{place.name(key)} {state}; its commit names {size} bytes. Restore it, or ingest into another folder."
            )
        shards[key] = found
    return shards


def _named_by(place: Place, path: str) -> list[tuple[str, int]]:
    """The shards that a commit names: paths and sizes in bytes."""
    name = place.name(path)
    try:
        with place.open(path) as stream:
            data = stream.read()
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error}). Restore it, or give this user the right to.") from error
    commit = unseal(data, name)
    try:
        stored = [part["objects"][IMAGES] for part in commit["parts"] if IMAGES in part["objects"]]
        named = [(it["key"], it["size"]) for it in stored]
        if commit["stage"] != path.partition("/")[0] or {(type(key), type(size)) for key, size in named} - {(str, int)}:
            raise ValueError
    except (LookupError, TypeError, ValueError) as error:
        raise IntegrityError(
            f"{name}: is not the commit of this ingest. Restore it from a backup, or ingest into another folder."
        ) from error
    return named
