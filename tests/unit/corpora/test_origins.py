"""The names of images, for every kind of corpus, against what another reader of the same files says."""

import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.shards import KINDS, write_as

from ray_ns.corpora import origins
from ray_ns.corpora.corpus import Corpus

ROWS = 11


def by_hand(kind: str, root: Path) -> list[dict[str, object]]:
    """A row's names, each file read by other means."""
    if kind == "folder":
        return [{"path": it.name, "member": None, "row": None, "source": None} for it in sorted(root.iterdir())]
    if kind == "tar":
        with tarfile.open(root / "0.tar") as archive:
            return [{"path": "0.tar", "member": it, "row": None, "source": None} for it in archive.getnames()]
    table = pq.read_table(root / "0.parquet")
    sources: list[str | None] = [None] * ROWS
    if kind == "packed":
        sources = table["source"].to_pylist()
    if kind == "hugging face":
        sources = [it["path"] for it in table["image"].to_pylist()]
    return [{"path": "0.parquet", "member": None, "row": row, "source": it} for row, it in enumerate(sources)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_row_has_the_name_it_has_in_its_file(
    tmp_path: Path, pictures: Callable[..., list[bytes]], kind: str
) -> None:
    corpus = write_as(kind, tmp_path / "c", pictures(ROWS), group_rows=4)
    wanted = by_hand(kind, tmp_path / "c")
    for rows in (np.arange(ROWS), np.array([0, 3, 4, 10]), np.array([9]), np.array([], np.int64)):
        found = corpus.open(corpus.shards[0]).origins(rows)
        assert found.schema == origins.SCHEMA
        assert found.to_pylist() == [wanted[row] for row in rows]


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_a_divided_corpus_are_those_it_keeps(
    tmp_path: Path, pictures: Callable[..., list[bytes]], kind: str
) -> None:
    corpus = write_as(kind, tmp_path / "c", pictures(ROWS), group_rows=4)
    kept = np.arange(ROWS) % 3 != 1
    part = corpus.keeping([kept])
    found = part.open(part.shards[0]).origins(np.array([1, 2, 5]))
    wanted = by_hand(kind, tmp_path / "c")
    assert found.to_pylist() == [wanted[row] for row in np.flatnonzero(kept)[[1, 2, 5]]]


def test_a_column_called_source_in_a_users_own_parquet_is_no_name(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    columns = {"image": pa.array([b"x"], pa.binary()), "source": ["flickr"]}
    pq.write_table(pa.table(columns), tmp_path / "c/0.parquet")
    corpus = Corpus.scan(str(tmp_path / "c"), "image", None)
    assert corpus.open(corpus.shards[0]).origins(np.array([0]))["source"].to_pylist() == [None]


@pytest.mark.parametrize(
    ("root", "wanted"),
    [
        ("pool", "pool/a b.png"),
        ("pool/", "pool/a b.png"),
        ("/", "/a b.png"),
        ("s3://bucket/pool/", "s3://bucket/pool/a b.png"),
        ("s3://key:secret@bucket/pool?region=eu-1", "s3://bucket/pool/a b.png"),
        ("file:///data/pool", "/data/pool/a b.png"),
    ],
)
def test_a_path_can_be_opened_and_holds_no_secret(root: str, wanted: str) -> None:
    assert origins.below(root, pa.array(["a b.png"])).to_pylist() == [wanted]


def test_a_root_is_kept_without_credentials_and_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert origins.lasting("pool/") == str(tmp_path / "pool")
    assert origins.lasting("s3://k:s@bucket/a?region=x") == "s3://bucket/a?region=x"
