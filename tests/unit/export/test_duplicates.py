"""The copies that an image of a packed pool stands for: real ingests, their tasks in this process."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.fan_out import InProcess
from support.labelled import labelled_run

from ray_ns.corpora.corpus import Corpus
from ray_ns.engine.ingest import opening
from ray_ns.engine.ingest.settings import Ingest
from ray_ns.errors import IntegrityError
from ray_ns.export import labels
from ray_ns.export.duplicates import Duplicates
from ray_ns.export.labels import Labelled

Pictures = Callable[..., list[bytes]]
Copies = dict[str, list[str]]


def pack(source: Path, destination: Path, append: bool = False) -> Corpus:
    opening.ingest(Ingest(str(source), str(destination), shard_rows=4, max_quarantined=0.5), append, "plain", InProcess)
    return Corpus.scan(str(destination), "image", None)


def copies_of(pool: Corpus, folder: Path) -> Copies:
    """The duplicates that are exported, by the source of the image that has some."""
    store, _ = labelled_run(folder, pool)
    rows = [row for table in labels.tables(Labelled.at(store, "rounds/1/label", pool)) for row in table.to_pylist()]
    assert len({row["source"] for row in rows}) == len(rows)
    return {row["source"]: row["duplicates"] for row in rows if row["duplicates"]}


def test_each_image_names_its_copies_of_all_generations(tmp_path: Path, pictures: Pictures) -> None:
    source = tmp_path / "source"
    (source / "a").mkdir(parents=True)
    images = pictures(10)
    for at, image in enumerate(images):
        (source / f"a/{at}.png").write_bytes(image)
    (source / "a/copy of 3.png").write_bytes(images[3])
    (source / "b =1.png").write_bytes(images[3])
    (source / "cut.png").write_bytes(images[4][:40])
    (source / "cut too.png").write_bytes(images[4][:40])
    once = pack(source, tmp_path / "packed")
    wanted = {"a/3.png": ["a/copy of 3.png", "b =1.png"]}
    assert copies_of(once, tmp_path / "one") == wanted, "what cannot be read stands for nothing"
    (source / "later").mkdir()
    for name, image in {"new": pictures(1, seed=5)[0], "of 3": images[3], "of 8": images[8]}.items():
        (source / f"later/{name}.png").write_bytes(image)
    (source / "later/new again.png").write_bytes((source / "later/new.png").read_bytes())
    grown = pack(source, tmp_path / "packed", append=True)
    assert copies_of(grown, tmp_path / "two") == {
        "a/3.png": ["a/copy of 3.png", "b =1.png", "later/of 3.png"],
        "a/8.png": ["later/of 8.png"],
        "later/new again.png": ["later/new.png"],
    }


def test_names_in_tars_and_parquet(tmp_path: Path, pictures: Pictures) -> None:
    images = pictures(5)
    for kind in ("tar", "parquet"):
        (tmp_path / kind).mkdir()
    with tarfile.open(tmp_path / "tar/x.tar", "w") as archive:
        for name, image in {"1.png": images[0], "line\nend é.png": images[1], "2.png": images[0]}.items():
            info = tarfile.TarInfo(name)
            info.size = len(image)
            archive.addfile(info, io.BytesIO(image))
    pq.write_table(pa.table({"image": pa.array([images[0], images[2], images[2]])}), tmp_path / "parquet/y.parquet")
    tars = pack(tmp_path / "tar", tmp_path / "of tar")
    assert copies_of(tars, tmp_path / "one") == {"x.tar: 1.png": ["x.tar: 2.png"]}
    shards = pack(tmp_path / "parquet", tmp_path / "of parquet")
    assert copies_of(shards, tmp_path / "two") == {"y.parquet row 1": ["y.parquet row 2"]}


def test_names_with_the_same_hash_are_told_apart(
    tmp_path: Path, pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xxhash.xxh3_64_intdigest", lambda _: 7)
    (tmp_path / "source").mkdir()
    for at, image in enumerate(pictures(3)):
        for name in (f"{at}.png", f"{at} copy.png"):
            (tmp_path / "source" / name).write_bytes(image)
    found = copies_of(pack(tmp_path / "source", tmp_path / "packed"), tmp_path / "run")
    assert found == {f"{at} copy.png": [f"{at}.png"] for at in range(3)}


def test_a_pool_that_was_not_packed_has_none(tmp_path: Path, pictures: Pictures) -> None:
    (tmp_path / "pool").mkdir()
    for at, image in enumerate(pictures(2)):
        (tmp_path / f"pool/{at}.png").write_bytes(image)
    with Duplicates(Corpus.scan(str(tmp_path / "pool"), "image", None)) as duplicates:
        assert duplicates.of(pa.array(["0.png", None])).to_pylist() == [[], []]


def test_a_damaged_list_is_refused_by_name(tmp_path: Path, pictures: Pictures) -> None:
    (tmp_path / "source").mkdir()
    for at in range(2):
        (tmp_path / f"source/{at}.png").write_bytes(pictures(1)[0])
    pool = pack(tmp_path / "source", tmp_path / "packed")
    (left_out,) = (tmp_path / "packed").rglob("left_out.jsonl")
    left_out.write_text(json.dumps({"source": "x", "why": "duplicate", "of": "0.png"}))
    with pytest.raises(IntegrityError, match=r"left_out\.jsonl does not match its hash"):
        Duplicates(pool)
