"""Data copied or touched under a run that has begun: the same content goes on, another one is refused by name."""

import io
import itertools
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.tiny_run import write_tiny

from ray_ns.corpora.known import DIGEST_BYTES
from ray_ns.engine.opening import drive
from ray_ns.engine.run import Run
from ray_ns.engine.stages import digests, label
from ray_ns.engine.workers.slices import CONTENT, Reader, cut
from ray_ns.errors import InputError
from ray_ns.store import commit

CORPORA = ["labelled", "validation", "test", "pool"]
KINDS = ["parquet", "tar", "folder"]
HELD_OUT = ["validation=null", "test=null"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("touched"))


def rows_of(folder: Path) -> list[tuple[bytes, int | None]]:
    table = pa.concat_tables(pq.read_table(path) for path in sorted(folder.glob("*.parquet")))
    labels = table["label"].to_pylist() if "label" in table.column_names else [None] * table.num_rows
    return list(zip(table["image"].to_pylist(), labels, strict=True))


def write(folder: Path, kind: str, rows: list[tuple[bytes, int | None]]) -> None:
    """A corpus of that kind: shards of 200 rows in row groups of 100, or a file for each image."""
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "folder":
        for number, (image, label_) in enumerate(rows):
            path = folder / ("" if label_ is None else f"class {label_}") / f"{number:04d}.png"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(image)
        return
    for at in range(0, len(rows), 200):
        some = rows[at : at + 200]
        if kind == "parquet":
            columns = {"image": pa.array([image for image, _ in some], pa.binary())}
            if some[0][1] is not None:
                columns["label"] = pa.array([it for _, it in some], pa.int64())
            options = {"row_group_size": 100, "compression": "none", "use_dictionary": False}
            pq.write_table(pa.table(columns), folder / f"{at:04d}.parquet", **options, write_statistics=False)
            continue
        with tarfile.open(folder / f"{at:04d}.tar", "w") as archive:
            for number, (image, label_) in enumerate(some):
                members = {"png": image} | ({} if label_ is None else {"cls": str(label_).encode()})
                for suffix, data in members.items():
                    info = tarfile.TarInfo(f"{number:04d}.{suffix}")
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))


@pytest.fixture
def begun(tiny: Path, tmp_path: Path) -> list[str]:
    """Words for a run on a copy of the data, as Parquet, in ``tmp_path / 'data'``."""
    shutil.copytree(tiny.parent / "data", tmp_path / "data")
    return begin(tiny, tmp_path, [])


def begin(tiny: Path, folder: Path, words: list[str]) -> list[str]:
    given = [f"{name}={folder / 'data' / name}" for name in CORPORA]
    words = [f"run.dir={folder / 'run'}", *given, *words]
    with drive(str(tiny), words, "plain"):
        pass
    return words


def reopened(tiny: Path, words: list[str]) -> None:
    with drive(str(tiny), words, "plain") as session:
        assert not any(corpus.touched for corpus in session.corpora.values())


def touch(folder: Path) -> int:
    """Give every file below another time; how many there are."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in files:
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 1_000_000_000))
    return len(files)


def altered(rows: list[tuple[bytes, int | None]], at: int) -> list[tuple[bytes, int | None]]:
    """The same but for the last byte of one image."""
    image, label_ = rows[at]
    return [*rows[:at], (image[:-1] + bytes([image[-1] ^ 1]), label_), *rows[at + 1 :]]


def as_labelled(session: Run, prefix: str = "rounds/1/label", only: tuple[int, ...] = (), rows: int = 200) -> None:
    """What a labelling of the pool records, made by the same functions from the same slices, without a network."""
    reader, pool = Reader(session.config), session.corpora["pool"]
    stage = commit.Output(session.store, prefix, session.lease.check)
    session.store.put_if_absent(f"{prefix}/plan.json", b"{}")
    for number, job in enumerate(label.label_shards(pool, rows)):
        content: list[bytes] = []
        ids = []
        for piece in job.pieces:
            for it in cut("pool", piece, pool.open(piece.shard).group_rows, 64):
                reader.read(session.corpora, it, None, content)
                ids.append(it.image_ids)
        table = pa.table(
            {
                "image_id": np.concatenate(ids),
                "label": pa.nulls(len(content), pa.int64()),
                "quarantine": pa.nulls(len(content), pa.string()),
                CONTENT: pa.array(content, pa.binary(DIGEST_BYTES)),
            }
        )
        stage.publish(number, {}, label._facts(job, table, 10))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("held_out", [False, True])
def test_data_that_was_copied_or_touched_goes_on(
    tiny: Path, tmp_path: Path, kind: str, held_out: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in CORPORA:
        source = tiny.parent / "data" / ("test" if held_out and name == "labelled" else name)
        write(tmp_path / "data" / name, kind, rows_of(source))
    words = begin(tiny, tmp_path, HELD_OUT if held_out else [])
    corpora = (tmp_path / "run/corpora-1.json").read_bytes()
    names = ["labelled", "pool"] if held_out else CORPORA
    touched = {name: touch(tmp_path / "data" / name) for name in names}
    capsys.readouterr()
    reopened(tiny, words)
    said = capsys.readouterr().err
    for name, files in touched.items():
        assert f"data.{name}: {files:,} files have another time and the content that the run has seen" in said
    assert said.count("content that the run has seen") == len(names)
    assert (tmp_path / "run/corpora-1.json").read_bytes() == corpora
    shutil.copytree(tmp_path / "data", tmp_path / "copy", copy_function=shutil.copyfile)
    reopened(tiny, [word.replace(f"{tmp_path}/data", f"{tmp_path}/copy") for word in words])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["labelled", "validation", "test"])
def test_another_content_of_the_same_size_is_refused_by_name(tiny: Path, tmp_path: Path, kind: str, name: str) -> None:
    rows = {it: rows_of(tiny.parent / "data" / it) for it in CORPORA}
    for it in CORPORA:
        write(tmp_path / "data" / it, kind, rows[it])
    words = begin(tiny, tmp_path, [])
    write(tmp_path / "data" / name, kind, altered(rows[name], 3))
    touch(tmp_path / "data" / name)
    where = {"parquet": r"0000\.parquet row 3", "tar": r"0000\.tar: 0003\.png", "folder": r"class \d/0003\.png"}[kind]
    expected = rf"^data\.{name}: {tmp_path}/data/{name}/{where} has changed \(the same size, another content\)"
    with pytest.raises(InputError, match=expected):
        reopened(tiny, words)


@pytest.mark.parametrize("kind", ["parquet", "tar"])
def test_another_label_in_a_file_of_the_same_size_is_refused_by_name(tiny: Path, tmp_path: Path, kind: str) -> None:
    rows = {it: rows_of(tiny.parent / "data" / it) for it in CORPORA}
    for it in CORPORA:
        write(tmp_path / "data" / it, kind, rows[it])
    words = begin(tiny, tmp_path, [])
    image, label_ = rows["test"][3]
    write(tmp_path / "data/test", kind, [*rows["test"][:3], (image, (label_ + 1) % 10), *rows["test"][4:]])
    touch(tmp_path / "data/test")
    with pytest.raises(InputError, match=rf"^data\.test: {tmp_path}/data/test/0000\.{kind} has changed \(its labels\)"):
        reopened(tiny, words)


@pytest.mark.parametrize("rows", [100, 200, 1000], ids=["parts of shards", "shards", "all in one"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_labelled_pool_is_compared_by_what_its_labelling_recorded(
    tiny: Path, tmp_path: Path, kind: str, rows: int
) -> None:
    for name in CORPORA:
        source = rows_of(tiny.parent / "data" / name)
        write(tmp_path / "data" / name, kind if name == "pool" else "parquet", source)
    words = begin(tiny, tmp_path, [])
    with drive(str(tiny), words, "plain") as session:
        as_labelled(session, rows=rows)
    touch(tmp_path / "data/pool")
    reopened(tiny, words)
    write(tmp_path / "data/pool", kind, altered(rows_of(tiny.parent / "data/pool"), 450))
    touch(tmp_path / "data/pool")
    where = {"parquet": r"0400\.parquet", "tar": r"0400\.tar", "folder": r"0000\.png or one of 599 more files"}[kind]
    with pytest.raises(InputError, match=rf"^data\.pool: {tmp_path}/data/pool/{where} has changed \(the same size"):
        reopened(tiny, words)


def test_what_is_not_labelled_yet_may_change(tiny: Path, tmp_path: Path) -> None:
    rows = rows_of(tiny.parent / "data/pool")
    for name in CORPORA:
        write(tmp_path / "data" / name, "parquet", rows_of(tiny.parent / "data" / name))
    begun = begin(tiny, tmp_path, [])
    with drive(str(tiny), begun, "plain") as session:
        as_labelled(session)
    (tmp_path / "run/rounds/1/label/done/000001.json").unlink()  # killed before it
    write(tmp_path / "data/pool", "parquet", altered(rows, 250))
    touch(tmp_path / "data/pool")
    reopened(tiny, begun)
    write(tmp_path / "data/pool", "parquet", altered(rows, 50))
    touch(tmp_path / "data/pool")
    with pytest.raises(InputError, match=r"pool/0000\.parquet has changed"):
        reopened(tiny, begun)


@pytest.mark.parametrize("without", ["pool", "labelled"])
def test_what_an_earlier_version_kept_no_hash_of_is_refused_as_it_was(
    tiny: Path, tmp_path: Path, begun: list[str], without: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with drive(str(tiny), begun, "plain") as session, monkeypatch.context() as patch:
        patch.setattr(label, "_content", lambda *_: [])
        patch.setattr(label, "CONTENT", "other")
        as_labelled(session)
    if without == "labelled":
        shutil.rmtree(tmp_path / "run/digests")
    touch(tmp_path / "data" / without)
    with pytest.raises(InputError, match=rf"data/{without}/0\.parquet has another time .* no hash in this run"):
        reopened(tiny, begun)


def test_a_restricted_labelling_takes_nothing_from_a_whole_one(tiny: Path, tmp_path: Path, begun: list[str]) -> None:
    with drive(str(tiny), begun, "plain") as session:
        as_labelled(session)
        facts = [part.facts for part in commit.Output(session.store, "rounds/1/label", lambda: None).done().values()]
        session.store.put_if_absent("rounds/2/label/plan.json", b"{}")
        restricted = commit.Output(session.store, "rounds/2/label", session.lease.check)
        for number, found in enumerate(facts):
            restricted.publish(number, {}, {key: it for key, it in found.items() if key != CONTENT})
    touch(tmp_path / "data/pool")
    reopened(tiny, begun)


def test_digests_of_labels_are_kept_per_shard(tiny: Path, tmp_path: Path, begun: list[str]) -> None:
    with drive(str(tiny), begun, "plain") as session:
        found = commit.find_commit(session.store, digests.Digest.name)
        assert found is not None
        labels = found.parts[0].facts["labels"]
        assert {name: len(of) for name, of in labels.items()} == {
            name: len(session.corpora[name].shards) for name in CORPORA[:3]
        }
        assert len(set(itertools.chain.from_iterable(labels.values()))) == 3
